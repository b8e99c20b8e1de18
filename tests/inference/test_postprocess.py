"""Cleaning up an answer as it streams gives what cleaning it up at the end gives, however it is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medchat.inference.postprocess import StreamingCleanup, clean_answer

MARKERS = {"<|begin|>": "", "<|end|>": "", "[[date]]": "2023年"}
PIECES = st.sampled_from(
    ["好", "药", "a", " ", "\n", ",", "!", "?", "<", "<|", "|>", "[[", "]]", "\ufffd", *MARKERS]
)


def in_passes(text: str) -> str:
    """Write the published rules out as they stand: replace, then one pass a mark and side."""
    for marker, words in MARKERS.items():
        text = text.replace(marker, words)
    for mark, wide in ((",", "，"), ("!", "！"), (":", "："), (";", "；"), (r"\?", "？")):
        text = re.sub(f"([\u4e00-\u9fff]){mark}", rf"\1{wide}", text)
        text = re.sub(f"{mark}([\u4e00-\u9fff])", rf"{wide}\1", text)
    return re.sub(r"[\s\ufffd]+\Z", "", text).lstrip()


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=14), st.booleans())
@example(["a", ",", "<|end|>", "好"], True)
@example([" ", "<|begin|>", " ", "a", "<|end|>", " "], True)
@example(["a", ",", "<|", "好"], True)
def test_streaming_gives_what_the_published_rules_give(pieces: list[str], widen: bool) -> None:
    cleanup = StreamingCleanup(replaced=MARKERS, full_width=widen)
    given_out = "".join(cleanup.feed(piece) for piece in pieces) + cleanup.finish()
    whole = "".join(pieces)
    assert given_out == clean_answer(whole, replaced=MARKERS, full_width=widen)
    if widen:
        assert given_out == in_passes(whole)


def test_a_filter_is_as_new_after_its_answer() -> None:
    cleanup = StreamingCleanup(replaced=MARKERS)
    first = [cleanup.feed(" 好,"), cleanup.finish()]
    assert first == [cleanup.feed(" 好,"), cleanup.finish()]


@pytest.mark.parametrize("text", ["好,", "a,", "a, b", "好!药?"])
def test_nothing_is_replaced_without_markers(text: str) -> None:
    assert clean_answer(text, full_width=False) == text


@pytest.mark.parametrize("pieces", [["头", "\ufffd"], ["头\ufffd\ufffd"], ["头", " \ufffd\n", "\ufffd "]])
def test_half_a_character_at_the_end_is_neither_shown_nor_kept(pieces: list[str]) -> None:
    cleanup = StreamingCleanup()
    assert [*map(cleanup.feed, pieces), cleanup.finish()] == ["头", *[""] * len(pieces)]
    assert clean_answer("".join(pieces)) == "头"


def test_bytes_that_are_no_character_stay_where_an_answer_goes_on() -> None:
    cleanup = StreamingCleanup()
    assert [cleanup.feed(piece) for piece in ("头\ufffd", "\ufffd", "痛")] == ["头", "", "\ufffd\ufffd痛"]
