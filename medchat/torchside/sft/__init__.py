"""Supervised fine-tuning: what every backbone's recipes share.

A recipe brings its data as features, a model with the parameters to train, and a collator; this
package trains (`training`), and writes the result so that it is whole or not there (`partial_folder`,
`checkpoint`, `manifest`).
"""
