"""From examples to ids: what is cut and in which order, what is left out, and what never is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from built_features import build_features
from hypothesis import given
from hypothesis import strategies as st

from medchat.api import Example, Segment, Text, Turn
from medchat.errors import DataError
from medchat.templates import load_template
from medchat.training.features import TOKENS_KEPT, Feature

END = 0


class Words:
    """One id a character; prompts end with a marker, answers with the end token."""

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        return [*(ord(c) for segment in segments if isinstance(segment, Text) for c in segment.text), 1]

    def encode_answer(self, answer: str) -> list[int]:
        return [*map(ord, answer), END]


class Bytes(Words):
    """One id a byte, as byte-level vocabularies have it for rare characters."""

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        text = "".join(segment.text for segment in segments if isinstance(segment, Text))
        return [*(byte + 2 for byte in text.encode()), 1]

    def encode_answer(self, answer: str) -> list[int]:
        return [*(byte + 2 for byte in answer.encode()), END]


class Plain:
    name, stop, multi_turn = "plain", (), True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        return (Text(system + "".join(turn.question + turn.answer for turn in turns)), Text(question))


def prompt_text(feature: Feature) -> str:
    return "".join(map(chr, feature.prompt_ids[:-1]))


def answer_text(feature: Feature) -> str:
    return "".join(map(chr, feature.answer_ids[:-1]))


def test_labels_are_the_answer_and_its_end_token_and_nothing_else() -> None:
    (feature,) = build_features([Example("ab", "xyz", where="f:7")], Plain(), Words(), 20).features
    assert feature.prompt_ids == (ord("a"), ord("b"), 1)
    assert feature.answer_ids == (*map(ord, "xyz"), END)
    assert (feature.length, feature.record, feature.where) == (7, 1, "f:7")


def test_oldest_turns_go_first_and_question_and_answer_stay_whole() -> None:
    example = Example("three", "third", (Turn("one", "first"), Turn("two", "second")))
    for limit in range(12, 40):
        made = build_features([example], Plain(), Words(), limit)
        (feature,) = made.features
        kept = next(
            text
            for text in ("onefirsttwosecondthree", "twosecondthree", "three")
            if len(text) + 1 + 6 <= limit
        )
        assert (prompt_text(feature), answer_text(feature)) == (kept, "third")
        assert made.lost_turns == (kept != "onefirsttwosecondthree")
        assert (made.cut_questions, made.cut_answers, made.lengths) == (0, 0, (29,))


def test_then_the_beginning_of_the_question_goes_but_never_its_last_half() -> None:
    question = "".join(map(chr, range(100, 140)))
    example = Example(question, "answer", (Turn("old", "turn"),))
    for limit in range(28, 48):  # 20 to 39 of the question, its marker, the answer, the end
        made = build_features([example], Plain(), Words(), limit)
        (feature,) = made.features
        assert prompt_text(feature) == question[-(limit - 8) :]
        assert answer_text(feature) == "answer"
        assert (made.lost_turns, made.cut_questions, made.cut_answers) == (1, 1, 0)
    assert build_features([example], Plain(), Words(), 48).cut_questions == 0


def test_of_a_short_question_sixteen_tokens_stay() -> None:
    question = "".join(map(chr, range(100, 100 + TOKENS_KEPT + 4)))
    (feature,) = build_features([Example(question, "answer")], Plain(), Words(), TOKENS_KEPT + 3).features
    assert prompt_text(feature) == question[4:]
    short = question[:TOKENS_KEPT]
    (feature,) = build_features([Example(short, "answer")], Plain(), Words(), TOKENS_KEPT + 3).features
    assert prompt_text(feature) == short


def test_only_then_the_end_of_the_answer_goes_and_its_end_token_stays() -> None:
    question = "".join(map(chr, range(100, 140)))
    for limit in range(23, 28):
        made = build_features([Example(question, "answer")], Plain(), Words(), limit)
        (feature,) = made.features
        assert prompt_text(feature) == question[-20:]
        assert feature.answer_ids == (*map(ord, "answer"[: limit - 22]), END)
        assert (made.cut_questions, made.cut_answers) == (1, 1)
    # One token less has no room for a token of the answer and its end.
    left_out = build_features(
        [Example(question, "answer"), Example("a", "b")], Plain(), Words(), 22, allow_left_out=True
    ).left_out
    assert [(record.record, record.needed) for record in left_out] == [(1, 23)]


def test_input_loses_its_beginning_before_the_question_does() -> None:
    example = Example("q" * 40, "answer", input="i" * 40)
    (feature,) = build_features([example], Plain(), Words(), 75).features
    assert prompt_text(feature) == "q" * 40 + "\n" + "i" * 26
    (feature,) = build_features([example], Plain(), Words(), 60).features
    assert prompt_text(feature) == "q" * 31 + "\n" + "i" * 20


def test_an_answer_is_never_cut_inside_a_character() -> None:
    for limit in range(6, 20):
        made = build_features([Example("q", "高血压")], Plain(), Bytes(), limit)
        ids = made.features[0].answer_ids
        assert ids[-1] == END
        text = bytes(token - 2 for token in ids[:-1]).decode()
        assert text == "高血压"[: (limit - 3) // 3]


@pytest.mark.parametrize("dialogue", [" <user>: a <bot>: b <user>: c", "<user>:a<bot>: b <user>:c"])
def test_weights_trained_on_dialogues_get_the_datas_own_text(dialogue: str) -> None:
    example = Example("c", "d", (Turn("a", "b"),), dialogue=dialogue)
    literature, med = load_template("literature_template"), load_template("med_template")
    (feature,) = build_features([example], literature, Words(), 200).features
    assert f":\n{dialogue}\n" in prompt_text(feature)
    (feature,) = build_features([example], med, Words(), 200).features
    assert "<user>" not in prompt_text(feature)
    length = build_features([example], literature, Words(), 200).lengths[0]
    made = build_features([example], literature, Words(), length - 12)
    assert ":\n <user>: c\n" in prompt_text(made.features[0]) and made.lost_turns == 1


def test_too_many_without_a_label_are_refused_with_numbers_and_a_length_that_would_do() -> None:
    examples = [Example("q", "a", where=f"f:{n}") for n in range(98)]
    examples += [Example("q" * 50, "a" * 50, where="f:98"), Example("q" * 60, "a", where="f:99")]
    with pytest.raises(DataError) as caught:
        build_features(examples, Plain(), Words(), 20)
    assert caught.value.exit_code == 6
    for part in ("100", "2", "2.0%", "20", "f:98", "f:99"):
        assert part in caught.value.what
    # 25 of the shorter question, its marker, a character, the end: then one in a hundred is left out.
    assert "--max-length 28" in caught.value.remedy and "102" in caught.value.remedy
    assert "--allow-truncation" in caught.value.remedy
    assert len(build_features(examples, Plain(), Words(), 28).left_out) == 1
    made = build_features(examples, Plain(), Words(), 20, allow_left_out=True)
    assert [record.where for record in made.left_out] == ["f:98", "f:99"]
    assert len(made.features) == 98 and len(made.lengths) == 100


@pytest.mark.parametrize("examples", [[], [Example("q" * 50, "a" * 50)]])
def test_nothing_to_learn_is_an_error(examples: list[Example]) -> None:
    with pytest.raises(DataError):
        build_features(examples, Plain(), Words(), 20, allow_left_out=True)


turns = st.lists(st.builds(Turn, st.text(max_size=9), st.text(max_size=9)), max_size=4).map(tuple)
texts = st.text(max_size=40)
answers = texts.filter(str.strip)
some_examples = st.lists(
    st.builds(Example, texts, answers, turns, input=st.text(max_size=30)), min_size=1, max_size=9
)


@given(some_examples, st.integers(4, 80), st.sampled_from([Words(), Bytes()]))
def test_every_example_fits_with_its_end_token_or_is_named_as_left_out(
    examples: list[Example], limit: int, encoder: Words
) -> None:
    try:
        made = build_features(examples, Plain(), encoder, limit, allow_left_out=True)
    except DataError:
        return
    records = sorted(feature.record for feature in (*made.features, *made.left_out))
    assert records == list(range(1, len(examples) + 1))
    for feature in made.features:
        example = examples[feature.record - 1]
        whole = encoder.encode_answer(example.answer)
        assert feature.length <= limit
        assert feature.answer_ids[-1] == END and len(feature.answer_ids) >= 2
        assert list(feature.answer_ids[:-1]) == whole[: len(feature.answer_ids) - 1]
        if made.lengths[feature.record - 1] <= limit:
            assert feature.length == made.lengths[feature.record - 1]


@given(some_examples, st.integers(4, 60))
def test_the_length_that_an_error_names_does_do(examples: list[Example], limit: int) -> None:
    try:
        build_features(examples, Plain(), Bytes(), limit)
    except DataError as error:
        named = [int(word.strip("（(")) for word in numbers(error.remedy)]
        build_features(examples, Plain(), Bytes(), named[0])
        if named[0] > limit + 1:
            with pytest.raises(DataError):
                build_features(examples, Plain(), Bytes(), named[0] - 1)
        nothing_cut = build_features(examples, Plain(), Bytes(), named[1])
        assert sum(feature.length for feature in nothing_cut.features) == sum(nothing_cut.lengths)


def numbers(text: str) -> Iterator[str]:
    digits = "".join(character if character.isdigit() else " " for character in text)
    return iter(digits.split())
