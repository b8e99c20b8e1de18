"""Records of data files: the JSON values in a file, and what each of them asks.

Knows no terminal, no model and no files: it is given text, line by line or whole.
"""
