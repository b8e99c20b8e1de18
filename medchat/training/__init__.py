"""Supervised fine-tuning: what every backbone's recipes share.

A recipe brings its data as features, a model with the parameters to train, and a collator; this package
trains (`train`) in an output folder that can be resumed (`run_folder`, `checkpoint`), and writes the result
atomically (`methods`, `manifest`).
"""
