"""Supervised fine-tuning: what every backbone's recipes share.

A recipe brings its data as features, a model with the parameters to train, and a collator; this
package trains (`training`) in an output folder that can be resumed (`run_folder`, `checkpoints`), and
writes the result so that it is whole or not there (`weights_file`, `manifest`).
"""
