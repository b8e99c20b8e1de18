"""The one error family. Every message says what happened, where, and what to type next.

A `MedchatError` is shown to the user as one or two lines and ends the program with its `exit_code`;
anything else that escapes is a defect of ours and is reported as such. Texts are already in the
interface language (see `medchat.language.say`) and may hold untrusted words (file names, plugin
metadata): whoever prints them passes them through `medchat.sanitize`.
"""

from __future__ import annotations


class MedchatError(Exception):
    """Something failed while running (exit code 1)."""

    exit_code = 1

    def __init__(self, what: str, remedy: str = "", *, where: str = "") -> None:
        super().__init__(what)
        #: What happened, in one sentence.
        self.what: str = what
        #: The next thing to type or do, "" where there is none.
        self.remedy: str = remedy
        #: The file, or file:line, "" where it has no place.
        self.where: str = where


class UsageError(MedchatError):
    """Wrong usage or configuration (exit code 2)."""

    exit_code = 2


class CheckpointError(MedchatError):
    """A model, adapter or file is missing, damaged or does not match (exit code 3)."""

    exit_code = 3


class MemoryShortageError(MedchatError):
    """Not enough memory, said before loading where it can be known (exit code 4)."""

    exit_code = 4


class PluginError(MedchatError):
    """A plugin failed (exit code 5)."""

    exit_code = 5


class DataError(MedchatError):
    """The data did not validate (exit code 6)."""

    exit_code = 6


class GateError(MedchatError):
    """An evaluation gate was not met (exit code 7)."""

    exit_code = 7


class Interruption(BaseException):
    """The program was asked to end. No guard around a plugin takes it for the plugin's own failure."""
