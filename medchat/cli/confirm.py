"""Asking a person at the terminal yes or no."""

from __future__ import annotations

import sys

from medchat.language import say
from medchat.settings.values import FALSE_WORDS, TRUE_WORDS


def confirmed(question: str, *, default: bool) -> bool:
    """Ask on stderr until the answer is yes or no; Enter alone is `default`, the end of the input is no."""
    choices = "[Y/n]" if default else "[y/N]"
    while True:
        sys.stderr.write(f"{question} {choices} ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        word = line.strip().lower()
        if not word:
            return default if line else False
        if word in ("y", *TRUE_WORDS):
            return True
        if word in ("n", *FALSE_WORDS):
            return False
        question = say("请输入 y 或 n：", "Type y or n:")
