"""How far the rules agree with people: labelled sentences, the same sentences written otherwise, and plain questions.

The labelled sentences were seen while the rules were written: their figures are a lower bound on nothing, and
are printed as *seen*. docs/safety.md has the figure on sentences that nobody who wrote rules had seen.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from locations import DATA, SHARED

from medchat.medical_safety import find_red_flags
from medchat.medical_safety.labelled import Score, Sentence, read_sentences, score

# Thousands of sentences go through lines that other tests run too: to trace each takes four times as long.
pytestmark = [pytest.mark.safety, pytest.mark.no_cover]

SEEN = DATA / "red_flags" / "seen.jsonl"
#: The many more that the weights of wordings were learned from, by some twenty writers who saw no rules.
WRITTEN = DATA / "red_flags" / "written.jsonl"
#: Written by three people who saw neither rules nor other sentences; scored for the first time on 30 November 2026,
#: when the rules were as the figures in docs/safety.md say. Never to be tuned with: new rules are judged by them.
UNSEEN = DATA / "red_flags" / "unseen.jsonl"
RECALL, FALSE_ALARMS = 0.98, 0.05
#: Of the questions that doctors' data sets ask, so many may raise a notice.
ALARMS = 0.005


@cache
def seen() -> list[Sentence]:
    return read_sentences(SEEN)


def fires(text: str, previous: str = "") -> bool:
    return bool(find_red_flags(text, previous or None))


def scored(name: str, sentences: list[Sentence], capsys: pytest.CaptureFixture[str]) -> Score:
    """Return how the detector fares on these sentences, and print it under this name."""
    result = score(sentences)
    with capsys.disabled():
        print(
            f"\n{name}: recall {result.must.share:.3f} {result.must.interval}, vital {result.vital.share:.3f},"
            f" false alarms {result.must_not.share:.3f} {result.must_not.interval}"
            f" of {result.must.total} + {result.must_not.total}"
        )
    return result


def test_the_sentences_seen_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    result = scored("seen", seen(), capsys)
    wrong = [sentence.text for sentence in result.wrong]
    assert len(seen()) >= 600
    assert result.must.total >= len(seen()) * 0.45
    assert result.must.share >= RECALL, wrong
    assert result.vital.share >= RECALL, wrong
    assert result.must_not.share <= FALSE_ALARMS, wrong


@pytest.mark.slow
def test_the_sentences_learned_from_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    result = scored("learned from", read_sentences(WRITTEN), capsys)
    assert result.must.share >= 0.97 and result.must_not.share <= 0.07


def test_the_sentences_nobody_tuned_with_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    result = scored("unseen", read_sentences(UNSEEN), capsys)
    assert result.must.share >= 0.9 and result.vital.share >= 0.95 and result.must_not.share <= 0.08


# ---------------------------------------------------------------- the same, written otherwise


def full_width(text: str) -> str:
    """Return the text with every ASCII character in its full-width form."""
    return "".join(
        chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each.replace(" ", "\u3000") for each in text
    )


def without_punctuation(text: str) -> str:
    """Return the text without punctuation; a point or slash between digits is none, and English keeps its blanks."""
    kept = re.sub(r"(?<!\d)[，。！？、,!?;；：:…“”（）()—.](?!\d)", " ", text)
    return kept if text.isascii() else re.sub(r"(?<=[^\x00-\x7f]) +(?=[^\x00-\x7f])", "", kept)


def traditional(text: str) -> str:
    """Return the text in traditional characters."""
    return str(to_traditional().convert(text))


@cache
def to_traditional() -> Any:
    """Return OpenCC's converter; reading its dictionaries takes a while."""
    return pytest.importorskip("opencc", reason="OpenCC is not installed").OpenCC("s2t")


EVERYDAY = (
    "最近工作比较忙，晚上睡不好，白天没有精神，请问饮食上要注意什么？平时喜欢吃米饭和青菜，偶尔喝点茶。"
    "孩子上小学三年级，个子比同学矮一些，需要去医院查骨龄吗？"
)
WAYS: dict[str, Callable[[str], str]] = {
    "a greeting": lambda text: f"医生您好！请问一下，{text}",
    "a greeting in English": lambda text: f"Hi doctor, {text}",
    "thanks": lambda text: f"{text}，谢谢！",
    "a question in the same breath": lambda text: f"{text}请问这是什么原因引起的？",
    "a question": lambda text: f"{text}，请问这是什么原因引起的？",
    "a question on the illness": lambda text: f"{text}，是什么病？需要做什么检查？",
    "an age before": lambda text: f"今年65岁，有高血压史。{text}",
    "a history before": lambda text: f"既往有高血压、糖尿病十年。{text}",
    "no punctuation": without_punctuation,
    "lines": lambda text: re.sub("[，。！？,!?；;]", "\n", text),
    "traditional characters": traditional,
    "full width": full_width,
    "zero width between all": lambda text: "\u200b".join(text),
    "upper case": str.upper,
    "everyday talk before": lambda text: EVERYDAY + text,
    "everyday talk behind": lambda text: f"{text}。{EVERYDAY}",
    "everyday talk around": lambda text: f"{EVERYDAY}{text}。{EVERYDAY}",
}


@cache
def recognized() -> list[Sentence]:
    """Return the emergencies that are found as they were written."""
    return [one for one in seen() if one.must and fires(one.text, one.previous)]


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_writing_it_silences_an_emergency(way: str) -> None:
    lost = [
        sentence.text for sentence in recognized() if not fires(WAYS[way](sentence.text), sentence.previous)
    ]
    assert recognized() and not lost, lost


# ---------------------------------------------------------------- questions of doctors' data sets


def plain_questions() -> Iterator[str]:
    """Yield the questions of the published training and test data: nobody in them is in danger now."""
    folder = SHARED / "data"
    for line in (folder / "llama_data.json").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["instruction"] + row.get("input", "")
    for line in (folder / "med_chatglm_train.txt").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["context"].removeprefix("问题：").removesuffix("回答: ").strip()
    for row in json.loads((folder / "liver_cancer.json").read_text(encoding="utf-8")):
        yield row["instruction"].split("<user>:")[1].split("<bot>")[0].strip()
    for row in json.loads((folder / "cmcoqa_question.json").read_text(encoding="utf-8")):
        yield row["question"]


@pytest.mark.slow
def test_doctors_data_sets_raise_hardly_any_notice(capsys: pytest.CaptureFixture[str]) -> None:
    if not (SHARED / "data" / "llama_data.json").exists():
        pytest.skip(f"{SHARED / 'data'} is not there")
    questions = Counter(plain_questions())
    alarms = {question: times for question, times in questions.items() if fires(question)}
    raised, asked = sum(alarms.values()), questions.total()
    with capsys.disabled():
        print(f"\n{raised} of {asked} questions raise a notice ({raised / asked:.3%})")
    assert asked > 17_000
    assert raised <= ALARMS * asked, alarms
