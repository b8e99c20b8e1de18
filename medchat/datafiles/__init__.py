"""Data files: what a file is, the values in it one by one, and what each of them asks and answers.

Knows no terminal and no model.
"""
