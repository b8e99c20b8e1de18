"""Whether a question and its answer use the knowledge they were made from. Knows no prompts and no files."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def normalised(text: str) -> str:
    """Return the text as it is compared: one width and case, letters and digits alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def values_named(answer: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return those of the values that the answer names, normalised; a value without letters is never named."""
    said = normalised(answer)
    return tuple(value for value in values if (plain := normalised(value)) and plain in said)


def mentions_word(text: str, word: str) -> bool:
    """Whether the text names the word, normalised."""
    return bool(values_named(text, (word,)))
