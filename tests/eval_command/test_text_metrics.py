"""Metrics of wording: the values of the literature, nothing for an empty answer, and blind to what is denied."""

from __future__ import annotations

import math

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from medchat_eval.results import mean_metric
from medchat_eval.text_metrics import (
    OVERLAP,
    bleu,
    characters,
    contradicted,
    perplexity_per_character,
    require_text_libraries,
    rouge_l,
    word_cutter,
)

from medchat.errors import UsageError

SENTENCE = "流感疫苗可以预防流行性感冒，建议老年人每年接种。"


def longest(one: str, other: str) -> int:
    """Return the length of the longest common subsequence by the textbook's table."""
    row = [0] * (len(other) + 1)
    for symbol in one:
        above = row[:]
        for at, own in enumerate(other, start=1):
            row[at] = above[at - 1] + 1 if symbol == own else max(above[at], row[at - 1])
    return row[-1]


@given(st.text("甲乙丙丁", max_size=30), st.text("甲乙丙丁", max_size=30))
def test_rouge_l_is_that_of_the_longest_common_subsequence(one: str, other: str) -> None:
    common = longest(one, other)
    expected = 2 * common / (len(one) + len(other)) if one and other else 0.0
    assert rouge_l(one, other) == pytest.approx(expected)


def test_an_empty_answer_scores_nothing() -> None:
    assert rouge_l([], characters(SENTENCE)) == 0.0
    assert bleu(["", SENTENCE], [SENTENCE, SENTENCE]).value < 1.0


def test_the_same_words_score_one_by_characters_by_words_and_by_bleu() -> None:
    cut = word_cutter()
    assert rouge_l(characters(SENTENCE), characters(SENTENCE)) == 1.0
    assert rouge_l(cut(SENTENCE), cut(SENTENCE)) == 1.0
    assert bleu([SENTENCE], [SENTENCE]).value == pytest.approx(1.0)
    assert "，" not in cut(SENTENCE) and 5 < len(cut(SENTENCE)) < len(characters(SENTENCE))


@pytest.mark.parametrize(
    "answers", [[SENTENCE, ""], ["多休息。", "多喝水，按时吃药。"], [SENTENCE[:9], SENTENCE * 2]]
)
def test_bleu_is_that_of_sacrebleu(answers: list[str]) -> None:
    references = [SENTENCE, "多休息，多喝水，按时吃药。"]
    expected = sacrebleu.corpus_bleu(answers, [references], tokenize="zh").score / 100
    found = bleu(answers, references)
    assert found.value == pytest.approx(expected) and found.count == 2 and found.interval is not None


def test_an_interval_narrows_with_the_number_of_answers() -> None:
    few, many = (bleu([SENTENCE, "多休息。"] * n, [SENTENCE, "多喝水。"] * n).interval for n in (4, 64))
    assert few is not None and many is not None and many.high - many.low < (few.high - few.low) / 2


def test_bleu_sees_chinese_words_where_blanks_divide_none() -> None:
    assert 0.3 < bleu(["流感疫苗可以预防流感，建议老年人每年接种。"], [SENTENCE]).value < 1.0


@pytest.mark.parametrize(
    ("text", "opposite"),
    [
        ("感冒不需要抗生素。", "感冒需要抗生素。"),
        ("应当立即就医。", "不应当立即就医。"),
        ("没有传染性。", "有传染性。"),
        ("可以游泳。", "不可以游泳。"),
        ("头痛。", ""),
    ],
)
def test_the_opposite_of_a_statement_has_its_words(text: str, opposite: str) -> None:
    assert contradicted(text) == opposite
    assert not opposite or rouge_l(characters(opposite), characters(text)) > 0.6


def test_perplexity_per_character_does_not_depend_on_the_tokens() -> None:
    likelihood = math.log(1 / 16)
    assert perplexity_per_character([(likelihood,) * 4], ["甲乙丙丁"]).value == pytest.approx(16)
    assert perplexity_per_character([(2 * likelihood,) * 2], ["甲乙丙丁"]).value == pytest.approx(16)


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(UsageError, match="sacrebleu") as raised:
        require_text_libraries()
    assert "medchat[eval]" in raised.value.remedy


def test_the_interval_of_an_overlap_ends_where_overlaps_end() -> None:
    for values, end in (([0.0] * 9 + [0.4], 0.0), ([1.0] * 9 + [0.6], 1.0)):
        interval = mean_metric(values, OVERLAP).interval
        assert interval is not None and end in (interval.low, interval.high)
        assert interval.low < sum(values) / 10 < interval.high
        beyond = mean_metric(values).interval
        assert beyond is not None and not 0 <= beyond.low <= beyond.high <= 1
