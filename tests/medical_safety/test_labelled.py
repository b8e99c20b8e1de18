"""Reading labelled sentences, and counting how the rules agree with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.errors import CheckpointError, DataError
from medchat.medical_safety.labelled import Sentence, Tally, read_sentences, score

pytestmark = pytest.mark.safety


def written(folder: Path, *rows: object) -> Path:
    path = folder / "sentences.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_recall_and_false_alarms_are_counted_by_label() -> None:
    result = score(
        [
            Sentence(1, "我爸没呼吸了", must=True, category="breathing", language="zh", vital=True),
            Sentence(2, "我有点渴", must=True, category="breathing", language="zh"),
            Sentence(3, "笑死我了", must=False, category="slang", language="zh"),
        ]
    )
    assert (result.must, result.vital, result.must_not) == (Tally(1, 2), Tally(1, 1), Tally(0, 1))
    assert result.by_category == {("breathing", True): Tally(1, 2), ("slang", False): Tally(0, 1)}
    assert [each.line for each in result.wrong] == [2]


@pytest.mark.parametrize(
    ("fired", "total", "low", "high"),
    # From Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_published_for_wilsons_method(
    fired: int, total: int, low: float, high: float
) -> None:
    assert Tally(fired, total).interval == pytest.approx((low, high), abs=6e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_share(fired: int, more: int) -> None:
    tally = Tally(fired, fired + more)
    low, high = tally.interval
    assert 0 <= low <= high <= 1
    assert low - 1e-9 <= tally.share <= high + 1e-9


def test_the_turn_before_is_read_along(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "舌头肿了", "must": True, "previous": "刚吃了虾", "lang": "zh"})
    (sentence,) = read_sentences(path)
    assert sentence == Sentence(1, "舌头肿了", must=True, language="zh", previous="刚吃了虾")
    assert score([sentence]).must == Tally(1, 1)


@pytest.mark.parametrize(
    "row",
    [{"text": "胸痛"}, {"must": True}, {"text": "胸痛", "must": "yes"}, {"text": 3, "must": True}, ["胸痛"],
     {"text": "胸痛", "must": True, "previous": 3}, {"text": "痛" * 20_001, "must": True}],
)  # fmt: skip
def test_a_row_that_is_no_labelled_sentence_is_named_by_its_line(tmp_path: Path, row: object) -> None:
    path = written(tmp_path, {"text": "好", "must": False}, row)
    with pytest.raises(DataError) as raised:
        read_sentences(path)
    assert raised.value.where == f"{path}:2"


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read_sentences(tmp_path / "nowhere.jsonl")
