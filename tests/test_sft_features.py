"""From examples to ids: what is cut, what is left out, and what never is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.api import Example, Segment, Text, Turn
from medchat.errors import DataError
from medchat.torchside.sft.features import build_features

END = 0


class Words:
    """One id a character; prompts end with a marker, answers with the end token."""

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        return [*(ord(c) for segment in segments if isinstance(segment, Text) for c in segment.text), 1]

    def encode_answer(self, answer: str) -> list[int]:
        return [*map(ord, answer), END]


class Plain:
    name, stop, multi_turn = "plain", (), True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        return (Text(system + "".join(turn.question + turn.answer for turn in turns)), Text(question))


def test_labels_are_the_answer_and_its_end_token_and_nothing_else() -> None:
    (feature,) = build_features([Example("ab", "xyz")], Plain(), Words(), 20).features
    assert feature.prompt_ids == (ord("a"), ord("b"), 1)
    assert feature.answer_ids == (*map(ord, "xyz"), END)
    assert (feature.length, feature.record) == (7, 1)


def test_oldest_turns_go_first_and_question_and_answer_stay_whole() -> None:
    turns = (Turn("one", "first"), Turn("two", "second"))
    example = Example("three", "third", turns)
    words = Words()
    for limit in range(12, 40):
        made = build_features([example], Plain(), words, limit, allow_left_out=True)
        (feature,) = made.features
        text = "".join(map(chr, feature.prompt_ids[:-1]))
        assert text in ("three", "twosecondthree", "onefirsttwosecondthree")
        assert feature.answer_ids == (*map(ord, "third"), END)
        assert feature.length <= limit
        assert made.shortened == (text != "onefirsttwosecondthree")


def test_too_many_examples_that_do_not_fit_are_refused_by_number() -> None:
    examples = [Example("q", "a")] * 98 + [Example("q", "a" * 50)] * 2
    with pytest.raises(DataError) as caught:
        build_features(examples, Plain(), Words(), 20)
    assert "99" in caught.value.what and "2" in caught.value.what
    assert "--max-length" in caught.value.remedy and "--allow-truncation" in caught.value.remedy
    made = build_features(examples, Plain(), Words(), 20, allow_left_out=True)
    assert made.left_out == (99, 100)
    assert len(made.features) == 98


def test_one_in_a_hundred_that_does_not_fit_is_left_out_and_counted() -> None:
    examples = [Example("q", "a")] * 99 + [Example("q", "a" * 50)]
    made = build_features(examples, Plain(), Words(), 20)
    assert (made.left_out, len(made.features)) == ((100,), 99)
    assert made.label_tokens == 99 * 2


@pytest.mark.parametrize("examples", [[], [Example("q", "a" * 50)]])
def test_nothing_to_learn_is_an_error(examples: list[Example]) -> None:
    with pytest.raises(DataError):
        build_features(examples, Plain(), Words(), 20, allow_left_out=True)


@given(st.lists(st.builds(Example, st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=30))
def test_every_example_is_a_feature_or_named_as_left_out(examples: list[Example]) -> None:
    try:
        made = build_features(examples, Plain(), Words(), 12, allow_left_out=True)
    except DataError:
        assert all(len(e.question) + len(e.answer) + 2 > 12 for e in examples)
        return
    records = sorted([*(feature.record for feature in made.features), *made.left_out])
    assert records == list(range(1, len(examples) + 1))
