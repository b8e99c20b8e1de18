"""`medchat eval choice`: an oracle scores 1, chance is chance, and a habit of choosing one letter shows."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cli_program import Call
from evaluation_results import results_of
from medchat_eval.choice_file import LETTERS, ChoiceItem
from medchat_eval.choice_metrics import METRICS, ChoiceTally
from medchat_eval.choice_prompt import AskedChoice, examples_for, in_every_order
from medchat_eval.choosing import Chosen, ScoredAnswers, choose_by_likelihood, choose_by_reply
from medchat_eval.replies import ModelReply
from medchat_eval.statistics import wilson

pytest_plugins = ("cli_program", "evaluated_models")


def items(count: int, *, several: bool = False, options: int = 4) -> list[ChoiceItem]:
    """Return questions whose right options are drawn at random."""
    draw = random.Random(count)
    return [
        ChoiceItem(
            number,
            number + 1,
            f"第 {number} 题？",
            tuple(f"选项{number}-{at}" for at in range(options)),
            frozenset(draw.sample(range(options), 2 if several else 1)),
            several,
            f"科目{number % 2}",
            str(number),
        )
        for number in range(count)
    ]


def tally(questions: Sequence[ChoiceItem], prefer: Callable[[AskedChoice, str], float]) -> ChoiceTally:
    """Return the tally of a model for which a candidate has the log-probability that `prefer` gives."""

    def score(asked: Sequence[AskedChoice], words: Sequence[Sequence[str]]) -> list[ScoredAnswers]:
        return [
            ScoredAnswers([(prefer(one, word), -1.0) for word in mine])
            for one, mine in zip(asked, words, strict=True)
        ]

    orders = [in_every_order(item) for item in questions]
    return ChoiceTally(list(choose_by_likelihood(order, score)) for order in orders)


def oracle(asked: AskedChoice, words: str) -> float:
    return 0.0 if {LETTERS.index(letter) for letter in words} == asked.answer else -5.0


def blind(asked: AskedChoice, words: str) -> float:
    return -float(int(hashlib.sha256(f"{asked.prompt}{words}".encode()).hexdigest()[:8], 16))


@pytest.mark.parametrize("several", [False, True])
def test_an_oracle_scores_one(several: bool) -> None:
    metrics = tally(items(30, several=several), oracle).metrics
    name = "accuracy_multi" if several else "accuracy"
    assert metrics[name].value == 1.0 and metrics["parsed_rate"].value == 1.0
    assert several or metrics["accuracy_every_order"].value == 1.0


@pytest.mark.parametrize(("several", "chance"), [(False, 1 / 4), (True, 1 / 15)])
def test_choosing_blindly_lies_within_the_interval_of_chance(several: bool, chance: float) -> None:
    metric = tally(items(400, several=several), blind).metrics["accuracy_multi" if several else "accuracy"]
    assert metric.chance == pytest.approx(chance)
    assert metric.interval is not None and metric.interval.holds(chance)


@pytest.mark.parametrize("letter", "ABCD")
def test_a_letter_that_is_always_chosen_is_at_chance_once_the_options_are_rotated(letter: str) -> None:
    questions = [item for item in items(200) if item.letters == letter]
    found = tally(questions, lambda asked, words: float(words == letter))
    assert found.metrics["accuracy"].value == 1.0
    assert found.metrics["accuracy_rotated"].value == pytest.approx(0.25)
    assert found.metrics["accuracy_every_order"].value == 0.0
    assert found.counts["letters_chosen"] == {letter: len(questions)}


def test_a_leaning_to_one_letter_is_warned_of() -> None:
    assert any("B" in warning for warning in tally(items(120), lambda _, words: float(words == "B")).warnings)
    assert not tally(items(120), oracle).warnings


def test_an_accuracy_that_guessing_may_give_is_warned_of_and_so_are_replies_without_a_choice() -> None:
    def warned(right: int) -> list[str]:
        questions = items(120)
        known = set(range(right))
        return tally(
            questions, lambda asked, words: oracle(asked, words) if asked.item.index in known else 0.0
        ).warnings

    assert any("随机水平" in warning for warning in warned(0))
    assert not any("随机水平" in warning for warning in warned(80))
    replies = [choose_by_reply(AskedChoice(item), ModelReply("不知道。")) for item in items(120)]
    assert any("120" in warning for warning in ChoiceTally([one] for one in replies).warnings)


def test_the_options_turn_and_the_right_one_with_them() -> None:
    (item,) = items(1, options=5)
    right = {item.options[place] for place in item.answer}
    orders = in_every_order(item)
    assert len({order.options for order in orders}) == 5 and orders[0].options == item.options
    for order in orders:
        assert {order.options[place] for place in order.answer} == right


def test_texts_are_compared_by_sum_and_by_character() -> None:
    item = ChoiceItem(0, 1, "问？", ("短", "长长长长"), frozenset({1}))

    def score(asked: Sequence[AskedChoice], words: Sequence[Sequence[str]]) -> list[ScoredAnswers]:
        return [ScoredAnswers([(-3.0, -9.0), (-2.0, -2.0, -9.0)])]

    (chosen,) = choose_by_likelihood([AskedChoice(item, shows_options=False)], score, by_text=True)
    assert (chosen.places, chosen.per_character) == (frozenset({0}), frozenset({1}))


def test_subjects_are_apart_and_questions_with_several_answers_are_in_neither() -> None:
    found = tally([*items(10), *items(4, several=True)], oracle)
    assert {name: metric.count for name, metric in found.subjects.items()} == {"科目0": 5, "科目1": 5}
    assert found.metrics["accuracy"].count == 10 and found.metrics["accuracy_multi"].count == 4


def test_a_question_that_cannot_be_asked_is_wrong_and_counted() -> None:
    asked = AskedChoice(items(1)[0])
    counted = ChoiceTally([[Chosen(asked, frozenset(), refusal="too long")]])
    assert counted.counts["refused"] == 1 and counted.metrics["accuracy"].value == 0.0
    assert any("too long" in warning for warning in counted.warnings)


def test_examples_are_of_the_subject_and_never_the_question_itself() -> None:
    questions = items(12)
    turns = examples_for(AskedChoice(questions[0]), questions, 3)
    assert [turn.answer for turn in turns] == [questions[at].letters for at in (2, 4, 6)]
    assert all("第 0 题" not in turn.question for turn in turns)


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1.0, 29, 0.8830, 1.0),
    ],
)
def test_intervals_are_those_of_the_literature(share: float, count: int, low: float, high: float) -> None:
    found = wilson(share, count)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.torch
def test_random_weights_lie_within_the_interval_of_chance_and_everything_is_written(
    call: Call, tiny_llama: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "题目.jsonl"
    records = [
        {"question": item.question, "options": item.options, "answer": item.letters, "subject": item.subject}
        for item in items(40)
    ]
    questions.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    flags = ("--backbone", "llama", "--model", str(tiny_llama), "--file", str(questions))
    done = call("eval", "choice", *flags, "--output", str(tmp_path / "out"), "--min", "accuracy=0.99")
    assert done.code == 7 and "accuracy" in done.failure()[0]
    results = results_of(tmp_path / "out")
    assert (results["schema"], results["schema_version"], results["task"]) == ("medchat-eval", 1, "choice")
    rotated = results["metrics"]["accuracy_rotated"]
    assert results["metrics"]["accuracy_every_order"]["chance"] == pytest.approx(0.25**4, abs=1e-6)
    assert rotated["interval"][0] <= rotated["chance"] == 0.25 <= rotated["interval"][1]
    assert results["data"][0]["sha256"] == hashlib.sha256(questions.read_bytes()).hexdigest()
    assert set(results["metrics"]) <= set(METRICS) and len(results["items"]) == 40
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "<script" not in page
    assert (tmp_path / "out" / "results.json").stat().st_mode & 0o777 == 0o600
    again = call("eval", "choice", *flags, "--output", str(tmp_path / "out"))
    assert again.code == 2 and "--overwrite" in again.failure()[1]
    unknown = call("eval", "choice", *flags, "--output", str(tmp_path / "new"), "--min", "f1=0.5")
    assert unknown.code == 2 and "accuracy" in unknown.failure()[1]
