"""Redacts a server's messages: without the key, and without the user's text.

Servers repeat what they were sent: the key, also masked, cut, escaped or with invisible characters in it; the
question, in a validation error or a filter's message. Users paste error messages into bug reports.
"""

from __future__ import annotations

import html
import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from medchat.plugin_kit import sanitize_line

#: The characters of a server's message that are examined; fewer are shown.
_LOOKED_AT = 4000
_SHOWN = 200
#: This many consecutive characters of the key count as part of it, whatever surrounds them.
_KEY_PART = 6
_SHORTEST_KEY = 4
#: This many consecutive characters of the user's text count as quoted; fewer for Chinese, which is denser.
_CHINESE_RUN, _OTHER_RUN = 4, 12
#: The replacements of the key and of the user's text.
KEY_MARK, _WORDS_MARK = "***", "…"
#: Terminal escape sequences, which our screens drop, also incomplete ones.
_SEQUENCES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[P\]X^_][^\x07\x1b\x9c]*|\x1b[ -/]*[0-~]?")
_ESCAPES = re.compile(r"\\u([0-9a-fA-F]{4})")
#: Double escaping occurs in practice; one more level costs nothing.
_LEVELS = 3


def shown_words(text: str, key: str, private: Sequence[str] = (), longest: int = _SHOWN) -> str:
    """Return a server's `text` on one line, shortened, without `key` ("" for none) and the `private` texts."""
    return sanitize_line(without_private(text, key, private), longest)


def without_private(text: str, key: str, private: Sequence[str] = ()) -> str:
    """Return the beginning of `text`, unescaped, with marks in place of `key` and `private` texts."""
    text = _unescaped(text[:_LOOKED_AT])
    text = _marked(text, _key_spots(text, key), KEY_MARK)
    return _marked(text, _private_spots(text, private), _WORDS_MARK)


def _unescaped(text: str) -> str:
    for _ in range(_LEVELS):
        plain = html.unescape(unquote(_ESCAPES.sub(lambda found: chr(int(found[1], 16)), text)))
        if plain == text:
            break
        text = plain
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _key_spots(text: str, key: str) -> set[int]:
    """Return the offsets of characters in `text` that belong to the key, whatever is between them."""
    if len(letters_of(key)[0]) < _SHORTEST_KEY:  # a placeholder such as "x" is part of many words
        found = re.finditer(rf"(?<!\w){re.escape(key)}(?!\w)", text) if key else ()
        return {place for match in found for place in range(*match.span())}
    letters, places = letters_of(text)
    spots = set()
    for form in (key, *base64_parts(key)):
        wanted = letters_of(form)[0]
        spots |= _runs(letters, places, [wanted], min(len(wanted), _KEY_PART)) if wanted else set()
    return spots


def base64_parts(key: str) -> Iterable[str]:
    """Return the key in base64 as part of a longer text: the first and last characters depend on that."""
    for lead in range(3):
        encoded = b64encode(b"\0" * lead + key.encode()).decode().rstrip("=")
        yield encoded[2 * bool(lead) + (lead == 2) : -2]


def _private_spots(text: str, private: Sequence[str]) -> set[int]:
    letters, places = letters_of(text)
    spots = set()
    for said in private:
        wanted = letters_of(said)[0]
        if 1 < len(wanted) < _OTHER_RUN:
            spots |= _whole(text, letters, places, wanted)
        spots |= _runs(letters, places, [wanted], _OTHER_RUN)
        chinese = [run for run in re.split(r"[\x00-\x7f]+", wanted) if len(run) >= _CHINESE_RUN]
        spots |= _runs(letters, places, chinese, _CHINESE_RUN)
    return spots


def _whole(text: str, letters: str, places: Sequence[int], wanted: str) -> set[int]:
    """Return the offsets of `wanted` as separate words: a short text is part of many words."""
    spots: set[int] = set()
    for match in re.finditer(re.escape(wanted), letters):
        found = places[match.start() : match.end()]
        around = text[max(0, found[0] - 1) : found[0]] + text[found[-1] + 1 : found[-1] + 2]
        if not (wanted.isascii() and any(letter.isalnum() for letter in around)):
            spots.update(found)
    return spots


def letters_of(text: str) -> tuple[str, list[int]]:
    """Return the letters and digits of `text`, folded, and the offset of each: characters between them are ignored."""
    letters, places = [], []
    hidden = {place for match in _SEQUENCES.finditer(text) for place in range(*match.span())}
    for place, character in enumerate(text):
        if place in hidden:
            continue
        for folded in unicodedata.normalize("NFKC", character).casefold():
            if folded.isalnum():
                letters.append(folded)
                places.append(place)
    return "".join(letters), places


def _runs(letters: str, places: Sequence[int], texts: Iterable[str], run: int) -> set[int]:
    """Return the offsets of every run of `run` letters that one of `texts` contains too."""
    starts: dict[str, list[int]] = {}
    for start in range(len(letters) - run + 1):
        starts.setdefault(letters[start : start + run], []).append(start)
    shared = {
        part
        for text in texts
        for start in range(len(text) - run + 1)
        if (part := text[start : start + run]) in starts
    }
    return {place for found in shared for start in starts[found] for place in places[start : start + run]}


def _marked(text: str, spots: set[int], mark: str) -> str:
    """Return `text` with `mark` in place of `spots`, including what is between two spots of one run."""
    if not spots:
        return text
    pieces, place = [], 0
    ordered = sorted(spots)
    for begin, end in _spans(ordered, text):
        pieces += [text[place:begin], mark]
        place = end
    return "".join([*pieces, text[place:]])


def _spans(spots: Sequence[int], text: str) -> Iterable[tuple[int, int]]:
    begin = last = spots[0]
    for spot in spots[1:]:
        if any(character.isalnum() for character in text[last + 1 : spot]):
            yield begin, last + 1
            begin = spot
        last = spot
    yield begin, last + 1
