"""Slash commands as a table, and how one is found from what was typed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from medchat.cli.help_page import PLACEHOLDERS
from medchat.errors import UsageError
from medchat.language import say
from medchat.repl.screen import untrusted

Target = TypeVar("Target")

#: Chinese input methods type the full-width one.
SLASHES = ("/", "／")


@dataclass(frozen=True, slots=True)
class Offer:
    """A completion that replaces the last `length` characters, and a note on it."""

    text: str
    length: int
    note: str = ""


def _nothing(target: object, words: str) -> Iterable[Offer]:
    return ()


@dataclass(frozen=True, slots=True)
class ReplCommand(Generic[Target]):
    """One command: its two names, its arguments, one line of help in each language, its function.

    `more` is further help and `examples` a line to type, each in Chinese and in English. `complete` returns
    the completions of its arguments for the words typed so far.
    """

    name: str
    zh_name: str
    words: str
    zh: str
    en: str
    run: Callable[[Target, str], None]
    more: tuple[str, str] = ("", "")
    examples: tuple[str, str] = ("", "")
    complete: Callable[[Target, str], Iterable[Offer]] = _nothing

    @property
    def summary(self) -> str:
        """The line of help in the interface language."""
        return say(self.zh, self.en)

    @property
    def placeholders(self) -> str:
        """The arguments, in the interface language; literal words are not translated."""
        chinese = re.sub("[a-z]+", lambda word: PLACEHOLDERS.get(word[0].upper(), word[0]), self.words)
        return say(chinese, self.words)

    @property
    def details(self) -> str:
        """Further help in the interface language; "" if there is none."""
        return say(*self.more)

    @property
    def example(self) -> str:
        """An example line, by default the name alone."""
        return say(*self.examples) or say(f"/{self.zh_name}", f"/{self.name}")


@dataclass(frozen=True, slots=True)
class Typed:
    """A command as it was typed: `/name words`."""

    name: str
    words: str


def parse(line: str) -> Typed | str:
    """Return the command of `line`, or the question that it is. A doubled slash begins a question."""
    text = line.strip()
    if not text.startswith(SLASHES):
        return line
    if text[1:].startswith(SLASHES):
        return text[1:]
    name, *rest = text[1:].split(maxsplit=1) or [""]
    return Typed(name, rest[0] if rest else "")


def find(name: str, commands: Sequence[ReplCommand[Target]]) -> ReplCommand[Target]:
    """Return the command of that name or unique prefix. Raises UsageError with suggestions."""
    wanted = name.lower()
    for command in commands:
        if wanted in (command.name, command.zh_name):
            return command
    fitting = [c for c in commands if wanted and (c.name.startswith(wanted) or c.zh_name.startswith(wanted))]
    if len(fitting) == 1:
        return fitting[0]
    shown = untrusted(name[:40])
    if fitting:
        raise UsageError(
            say(f"/{shown} 对应多个命令", f"/{shown} could be several commands"), _listed(fitting)
        )
    raise UsageError(
        say(f"没有命令 /{shown}，内容没有发给模型", f"there is no command /{shown}; nothing was sent"),
        _suggestion(wanted, commands)
        + say(
            "/帮助 列出全部命令；要把斜杠发给模型，请用 // 开头",
            "/help lists them; begin with // to send a slash",
        ),
    )


def _suggestion(wanted: str, commands: Iterable[ReplCommand[Target]]) -> str:
    by_name = {name: command for command in commands for name in (command.name, command.zh_name)}
    near = difflib.get_close_matches(wanted, by_name, n=2, cutoff=0.5)
    near += [name for name in by_name if set(name) & set(wanted) and not name.isascii() and name not in near]
    if not near:
        return ""
    return (
        say("是不是想用：", "did you mean: ") + "  ".join(f"/{name}" for name in near[:3]) + say("？", "? ")
    )


def _listed(commands: Iterable[ReplCommand[Target]]) -> str:
    return "  ".join(f"/{command.name} /{command.zh_name}" for command in commands)
