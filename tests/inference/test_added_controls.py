"""Control tokens that a vocabulary adds are found in its ids, and the prompt's own words are not touched."""

from __future__ import annotations

import pytest

from medchat.api import Control, Segment, Text
from medchat.inference.prompt_ids import with_added_controls

SPECIAL = {"<s>": 1, "</s>": 2, "<eos>": 2, "[gMASK]": 3}
BEGIN, END, MASK = Control("<s>"), Control("</s>"), Control("[gMASK]")


@pytest.mark.parametrize(
    ("segments", "ids", "expected"),
    [
        ([Text("头"), Text("痛")], [9, 8], [Text("头痛")]),
        ([Text("头痛")], [1, 9, 8, 3, 1], [BEGIN, Text("头痛"), MASK, BEGIN]),
        ([BEGIN, Text("头痛"), END], [1, 9, 2], [BEGIN, Text("头痛"), END]),
        ([Text("甲"), MASK, Text("乙")], [9, 3, 2, 9, 1], [Text("甲"), MASK, END, Text("乙"), BEGIN]),
        ([Text("甲"), Control("<eos>")], [9, 2], [Text("甲"), Control("<eos>")]),
        ([Text(" "), MASK, Text("乙")], [1, 3, 9], [BEGIN, Text(" "), MASK, Text("乙")]),
        ([Text(""), MASK], [3], [MASK]),
        ([Text(" ")], [1], [BEGIN, Text(" ")]),
        ([MASK, MASK], [1, 3, 3], [BEGIN, MASK, MASK]),
    ],
)
def test_what_was_added_stands_in_its_place(
    segments: list[Segment], ids: list[int], expected: list[Segment]
) -> None:
    found = with_added_controls(segments, ids, SPECIAL)
    assert [(type(part), str(part)) for part in found] == [(type(part), str(part)) for part in expected]
