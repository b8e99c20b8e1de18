"""A text with `{instruction}` and `{input}` in it, filled in without ever being parsed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from medchat.api import Text

INSTRUCTION, INPUT = "instruction", "input"


class FormatStringError(ValueError):
    """The text is no valid form; the message names the offending placeholder or brace."""


@dataclass(frozen=True, slots=True)
class FormatString:
    """A parsed form: literal texts and placeholder names by turns.

    The notation is Python's `str.format` as BenTsao and alpaca-lora use it: `{{` and `}}` are braces.
    """

    pieces: tuple[tuple[str, str], ...]  # (literal before, placeholder name or "")

    @classmethod
    def parse(cls, text: str, allowed: tuple[str, ...]) -> FormatString:
        """Return the form of `text`. Raises FormatStringError for stray braces and placeholders not in `allowed`."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise FormatStringError(str(error)) from None
        pieces = []
        for literal, name, specification, conversion in parsed:
            if name is not None and (name not in allowed or specification or conversion):
                raise FormatStringError("{" + name + "}")
            pieces.append((literal, name or ""))
        return cls(tuple(pieces))

    def holds(self, name: str) -> bool:
        """Whether the placeholder occurs."""
        return any(found == name for _, found in self.pieces)

    def fill(self, values: Mapping[str, str]) -> tuple[Text, ...]:
        """Return the text in parts: ours and the user's stay apart, empty ones are left out."""
        parts = []
        for literal, name in self.pieces:
            parts += [literal, values[name] if name else ""]
        return tuple(Text(part) for part in parts if part)
