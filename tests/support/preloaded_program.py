"""The imports of a fork server for runs of the program without torch: everything on a question's path.

Except the commands and the REPL, whose help is in the language at the time of their import.
"""

# ruff: noqa: F401
from __future__ import annotations

import click.shell_completion
import markdown_it
import prompt_toolkit
import rich.console
import rich.live
import rich.markdown

import medchat.chat.conversation
import medchat.chat.recorder
import medchat.chat.setup
import medchat.cli.program
import medchat.registry
from medchat.medical_safety import find_red_flags, review_answer

# Reads the lexicon, which is the same for every question and takes about a quarter of a second.
find_red_flags("")
