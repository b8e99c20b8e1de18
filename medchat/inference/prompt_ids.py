"""From a template's segments to token ids, and back to the control tokens that a vocabulary added. No torch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from medchat.api import Control, Segment, Text
from medchat.errors import UsageError
from medchat.language import say


def segment_ids(
    segments: Iterable[Segment], encode: Callable[[str], list[int]], id_of: Callable[[str], int]
) -> list[int]:
    """Return one id a `Control`, and the ids of each run of adjacent `Text` encoded as one string.

    Joined first because vocabularies merge across the borders: parts encoded alone give other ids.
    """
    ids: list[int] = []
    for is_words, run in groupby(segments, key=lambda segment: isinstance(segment, Text)):
        if is_words:
            ids += encode("".join(segment.text for segment in run if isinstance(segment, Text)))
        else:
            ids += [id_of(segment.token) for segment in run if isinstance(segment, Control)]
    return ids


def special_id(token: str, special_ids: Mapping[str, int], where: str = "") -> int:
    """Return the id of a special token.

    Raises UsageError, with the vocabulary's file in `where`, for one that it lacks; the error names those it has.
    """
    if token not in special_ids:
        known = " ".join(special_ids)
        raise UsageError(
            say(f"这个词表没有特殊标记“{token}”", f"this vocabulary has no special token {token!r}"),
            say(
                f"换用别的 --template；可用的特殊标记：{known}",
                f"use another --template; the special tokens are {known}",
            ),
            where=where,
        )
    return special_ids[token]


def well_formed(text: str) -> str:
    """Return `text` with surrogate pairs joined and lone surrogates, which no UTF-8 has, as U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def with_added_controls(
    segments: Sequence[Segment], ids: Sequence[int], special_ids: Mapping[str, int]
) -> list[Segment]:
    """Return `segments`, neighbouring texts joined, with the control tokens that `ids` have besides.

    `ids` are those of the whole prompt, `special_ids` those of the control tokens, which no text encodes to.
    """
    names = {number: name for name, number in reversed(list(special_ids.items()))}  # the first of several
    given, parts = _joined(segments), list[Segment]()
    for is_control, run in groupby(ids, names.__contains__):
        if not is_control:
            if given and isinstance(given[0], Text):
                parts.append(given.popleft())
            continue
        for number in run:
            if _is_control(given, 1, number, special_ids) and isinstance(given[0], Text):
                parts.append(given.popleft())  # a text that no id stands for
            added = not _is_control(given, 0, number, special_ids)
            parts.append(Control(names[number]) if added else given.popleft())
    return [*parts, *given]


def _joined(segments: Sequence[Segment]) -> deque[Segment]:
    joined: deque[Segment] = deque()
    for is_text, run in groupby(segments, lambda part: isinstance(part, Text)):
        if not is_text:
            joined.extend(run)
        elif text := "".join(part.text for part in run if isinstance(part, Text)):
            joined.append(Text(text))
    return joined


def _is_control(given: deque[Segment], place: int, number: int, special_ids: Mapping[str, int]) -> bool:
    part = given[place] if place < len(given) else None
    return isinstance(part, Control) and special_ids.get(part.token) == number


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many ids the two sequences share at their beginning."""
    shared = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        shared += 1
    return shared
