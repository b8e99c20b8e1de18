"""Which control tokens a vocabulary has added to a prompt, and where: seen from the ids that it made of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import groupby

from medchat.api import Control, Segment, Text


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
