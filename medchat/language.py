"""The interface language: one process-wide choice; until it is made, that of the environment, Chinese by default.

Independent of configuration files or the command line: callers decide, this module remembers. Imported on the
fastest path (`medchat --help`), so it imports the standard library's `os` alone.
"""

from __future__ import annotations

import os

LANGUAGES = ("zh", "en")
_NEUTRAL_LOCALES = ("", "C", "POSIX")
_current = ""


def language_from_environment() -> str:
    """Return "zh" or "en" from `MEDCHAT_LANG`, else from the locale variables.

    Chinese unless the locale names another language; C, POSIX and C.UTF-8 count as Chinese.
    """
    wanted = os.environ.get("MEDCHAT_LANG", "").strip().lower()
    if wanted[:2] in LANGUAGES:
        return wanted[:2]
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            name = value.split(".")[0].split("@")[0]
            return "zh" if name in _NEUTRAL_LOCALES or name.lower().startswith("zh") else "en"
    return "zh"


def set_language(name: str) -> None:
    """Choose the interface language for this process. Raises ValueError for anything but zh and en."""
    global _current
    if name not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, not {name!r}")
    _current = name


def language_is_chosen() -> bool:
    """Say whether this process has chosen its language: a command has, a script of somebody's own has not."""
    return bool(_current)


class in_language:
    """Within `with in_language(name):` texts are in that language, "zh" or "en"."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = current_language()
        set_language(self._name)

    def __exit__(self, *raised: object) -> None:
        set_language(self._before)


def current_language() -> str:
    """Return the interface language in force, "zh" or "en"."""
    return _current or language_from_environment()


def say(zh: str, en: str) -> str:
    """Return the wording for the interface language in force. Both are always given, Chinese first."""
    return zh if current_language() == "zh" else en
