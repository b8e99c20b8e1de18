"""Letters out of answers in words: labelled replies, and never a letter where none is chosen."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import DATA
from medchat_eval.choice_file import LETTERS, option_letters
from medchat_eval.extraction import extract_choice

REPLIES = DATA / "eval" / "choice_replies.jsonl"
OPTIONS = ("肋胸膜", "肺胸膜", "膈胸膜", "胸膜顶")


def labelled() -> list[dict[str, Any]]:
    return [json.loads(line) for line in REPLIES.read_text(encoding="utf-8").splitlines()]


def chosen(reply: str, options: tuple[str, ...] = OPTIONS, *, several: bool = False) -> str:
    return option_letters(extract_choice(reply, options, several=several))


def test_labelled_replies_are_read_as_people_read_them() -> None:
    replies = labelled()
    assert len(replies) >= 700
    wrong = [
        (one["reply"], one["answer"], found)
        for one in replies
        if (found := chosen(one["reply"], tuple(one["options"]), several=one["several"])) != one["answer"]
    ]
    assert len(wrong) <= 0.01 * len(replies), wrong


def test_no_letter_comes_from_a_refusal_or_from_gibberish() -> None:
    silent = [one for one in labelled() if not one["answer"]]
    assert len(silent) >= 200
    assert [one["reply"] for one in silent if chosen(one["reply"], tuple(one["options"]))] == []


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize(
    "form", ["{}", "答案是{}。", "不是{other}，应该选{}", "{}. {text}", "{text}", "排除{other}，故选{}。"]
)
def test_every_letter_is_found_in_every_form(form: str, letter: str) -> None:
    other = "B" if letter == "A" else "A"
    text = OPTIONS[LETTERS.index(letter)]
    assert chosen(form.format(letter, other=other, text=text)) == letter


@pytest.mark.parametrize(
    ("reply", "options", "answer"),
    [
        ("首选ACEI。", ("ACEI", "利尿剂", "硝酸酯类"), "A"),
        ("DIC。", ("TTP", "DIC", "ITP", "HUS", "ITP合并HUS"), "B"),
        ("应选择CEA", ("AFP", "PSA", "CEA"), "C"),
        ("答案是DIC", ("TTP", "ITP", "DIC", "HUS"), "C"),
    ],
)
def test_a_word_made_of_option_letters_is_the_text_of_its_option(
    reply: str, options: tuple[str, ...], answer: str
) -> None:
    assert chosen(reply, options) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("高血压可用利尿剂、ARB、CCB治疗。", ""),
        ("ARB、利尿剂等药物需遵医嘱使用。", ""),
        ("常见的有AFP、利尿剂、PSA。", ""),
        ("首选利尿剂、限盐。", "B"),
        ("应为利尿剂。", "B"),
        ("不能排除强心苷，也可能是利尿剂。", ""),
        ("无法排除利尿剂，可能是硝酸酯类。", ""),
        ("排除强心苷，考虑利尿剂。", "B"),
    ],
)
def test_one_item_of_a_list_is_no_choice_unless_it_is_announced(reply: str, answer: str) -> None:
    assert chosen(reply, ("硝酸酯类", "利尿剂", "强心苷")) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("应吸氧、补液，不需要手术。", "AB"),
        ("吸氧，不用补液。", "A"),
        ("补液、手术，无须吸氧。", "BC"),
        ("C以外都对", "AB"),
        ("A、B之外都不对", "AB"),
        ("Both A and C are correct.", "AC"),
        ("B and C are right", "BC"),
        ("- [x] A\n- [ ] B\n- [x] C", "AC"),
        ("[ ] A. 吸氧\n[X] B. 补液\n[x] C. 手术", "BC"),
        ("主要是B和C。", "BC"),
        ("还不清楚，大概是A、C吧", "AC"),
    ],
)
def test_several_options_are_chosen_without_those_ruled_out(reply: str, answer: str) -> None:
    assert chosen(reply, ("吸氧", "补液", "手术"), several=True) == answer


@given(st.text(max_size=120))
def test_any_text_gives_options_that_there_are(text: str) -> None:
    for several in (False, True):
        places = extract_choice(text, OPTIONS, several=several)
        assert places <= {0, 1, 2, 3} and (several or len(places) <= 1)


@pytest.mark.no_cover  # measured
@pytest.mark.parametrize(
    "piece", ["A、", "选", "答案是", "不", "A. 肋胸膜\n", "**", "（", "or ", "\\text{", "是A"]
)
def test_long_replies_are_read_in_time(piece: str) -> None:
    start = time.process_time()
    extract_choice(piece * 3000, OPTIONS)
    assert time.process_time() - start < 2.0
