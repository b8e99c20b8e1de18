"""Drawing an answer costs time in proportion to its length, and what moves shows what will are there."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medchat.repl.markdown import rendered
from medchat.repl.rich_screen import RichScreen
from medchat.repl.unfinished import Unfinished

SHAPES: dict[str, Callable[[int], str]] = {
    "list": lambda n: "".join(f"- 第 {i} 条：**多喝水**，注意休息。\n" for i in range(n)),
    "numbered": lambda n: "".join(f"{i}. 多喝水，`按时` 吃药。\n" for i in range(1, n + 1)),
    "loose list": lambda n: "".join(f"- 第 {i} 条：多喝水。\n\n" for i in range(n)),
    "lists in lists": lambda n: "".join("  " * (i % 4) + f"- 第 {i} 条\n" for i in range(n)),
    "table": lambda n: "| 药 | 剂量 |\n|---|---|\n" + "".join(f"| 药{i} | {i} mg |\n" for i in range(n)),
    "fence": lambda n: "```python\n" + "".join(f"x = {i}  # 休息\n\n" for i in range(n)),
    "quotation": lambda n: "".join(f"> 第 {i} 行：多喝水。\n" for i in range(n)),
    "lines": lambda n: "".join(f"第 {i} 行：多喝水，注意休息。\n" for i in range(n)),
    "one line": lambda n: "患者应当多喝水，注意休息。" * n,
    "paragraphs": lambda n: "".join(f"第 {i} 段：多喝水，注意休息。\n\n" for i in range(n)),
    "stars": lambda n: "**a _b ~~c\n" * n,
    "ticks": lambda n: "".join("`" * (i % 30) + "a\n" for i in range(n)),
}
#: Texts whose first line alone is more than a screen holds: what a table or a fence begins with.
WIDE: dict[str, Callable[[int], str]] = {
    "table": lambda n: "".join(f"{cell * n}|\n" for cell in ("| 药", "|---", "| 甲")),
    "table of empty rows": lambda n: "| 药" * n + "|\n" + "|---" * n + "|\n" + "|\n" * n,
    "marks of a table": lambda n: "|" * 8 * n,
    "fence": lambda n: "```" + "a" * 8 * n,
}


#: An answer of every shape that is common, again and again.
MIXED = (
    "## 第 {number} 部分\n\n头痛三天，先看**有没有危险信号**：剧烈头痛、发热、颈部僵硬。有其中一项，请尽快就诊。\n\n"
    "- 多喝水，每天一千五百毫升以上。\n- 规律睡眠，`按时` 起床。\n  - 室内光线要柔和。\n\n"
    "| 药物 | 剂量 | 注意 |\n|---|---|---|\n| 对乙酰氨基酚 | 500 mg | 每天不超过 2 g |\n"
    "| 布洛芬 | 200 mg | 饭后服用 |\n\n"
    "1. 先休息半小时。\n2. 测一次体温和血压。\n\n"
)


def draw(text: str, piece: int, seconds: float) -> str:
    """Draw an answer whose pieces come at such a distance by a clock of its own, and return what was written."""
    stream, now = io.StringIO(), 0.0
    screen = RichScreen(stream, width=80, clock=lambda: now)
    for start in range(0, len(text), piece):
        now += seconds
        screen.piece(text[start : start + piece])
    screen.end_answer()
    return stream.getvalue()


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small part of each text fill the window: what is drawn then grows no more."""
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("LINES", "5")  # so that half of each text is more than a window


def steps_to_draw(text: str) -> int:
    """Return how many functions are called while `text` is drawn as it comes: the same on every machine."""
    calls = count()
    sys.setprofile(lambda frame, event, argument: event == "call" and next(calls))
    try:
        draw(text, 6, 0.004)
    finally:
        sys.setprofile(None)
    return next(calls)


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_twice_the_text_takes_at_most_two_and_a_half_times_the_steps(shape: Callable[[int], str]) -> None:
    steps_to_draw(shape(5))  # what is looked up once
    assert steps_to_draw(shape(160)) <= 2.5 * steps_to_draw(shape(80))


@pytest.mark.parametrize("tokens_a_second", [60, 600])
def test_at_most_three_bytes_are_written_for_one_of_text(tokens_a_second: int) -> None:
    text = "".join(MIXED.format(number=number) for number in range(6))
    written = draw(text, 2, 1 / tokens_a_second)
    assert len(text.encode()) < len(written.encode()) <= 3 * len(text.encode())


@pytest.mark.parametrize(
    "shape", [shape for name, shape in SHAPES.items() if name != "ticks"]
)  # one is a fence
def test_a_block_of_any_length_is_taken_off_soon_after_it_has_ended(shape: Callable[[int], str]) -> None:
    block = shape(300) + ("```\n" if shape is SHAPES["fence"] else "")
    unfinished = Unfinished()
    for start in range(0, len(block), 6):
        unfinished.add(block[start : start + 6])
    after = "\n\n然后是一段文字。\n\n" + "又是一段文字，说得很多。\n\n" * 2000
    grown = 0
    for line in after.splitlines(keepends=True):
        grown += len(line)
        if any(line.strip() and "又是" not in line for line in unfinished.add(line)):
            break
    assert grown < 0.25 * len(block) + 200


@pytest.mark.parametrize("end", ["```\n\n然后呢？\n", "```\n# 然后呢？\n"])
def test_the_end_of_a_long_block_is_seen_with_the_next_line(end: str) -> None:
    unfinished = Unfinished()
    for line in SHAPES["fence"](400).splitlines(keepends=True):
        assert unfinished.add(line) == []
    taken = [block for line in end.splitlines(keepends=True) for block in unfinished.add(line)]
    assert len(taken) == 1 and taken[0].startswith("```python") and "然后" in unfinished.text


@pytest.mark.parametrize(
    "name", [name for name in SHAPES if name not in ("stars", "ticks", "one line", "loose list")]
)
@pytest.mark.parametrize("lines", [20, 100, 333])
def test_the_last_rows_look_as_they_will_in_the_end(name: str, lines: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    text, rows = SHAPES[name](lines), 12
    unfinished = Unfinished()
    for line in text.splitlines(keepends=True):
        unfinished.add(line)
    whole = ["".join(part.text for part in line).strip() for line in rendered(unfinished.text, console, 60)]
    shown = rendered(unfinished.last_lines(rows, 60), console, 60)
    last = ["".join(part.text for part in line).strip() for line in shown][-rows + 2 :]
    # Columns of a table are as wide as what is seen of it needs, so blanks may differ.
    assert [" ".join(row.split()) for row in last] == [" ".join(row.split()) for row in whole[-rows + 2 :]]


def test_what_is_looked_at_is_bounded_by_the_screen_and_not_by_the_block() -> None:
    for shape in (*SHAPES.values(), *WIDE.values()):
        unfinished = Unfinished()
        unfinished.add(shape(1000))
        assert len(unfinished.last_lines(24, 80)) < 3 * 24 * 80


def test_a_head_whose_columns_have_no_room_is_not_drawn_again_and_again() -> None:
    shown = {}
    for columns in (3, 20, 40):
        unfinished = Unfinished()
        unfinished.add("| 药" * columns + "|\n" + "|---" * columns + "|\n" + "| 甲 |\n" * 50)
        shown[columns] = "---" in unfinished.last_lines(12, 60)
    assert shown == {3: True, 20: False, 40: False}


LINES = ["- 一\n", "1. 二\n", "> 三\n", "```\n", "~~~\n", "| 药 | 量 |\n", "|---|---|\n", "# 题\n", "\n"]
MARKDOWN = st.lists(st.sampled_from([*LINES, "头痛", "  ", "**", "`"]), max_size=60).map("".join)


@given(MARKDOWN, st.integers(1, 9))
def test_the_blocks_together_are_the_text_whatever_its_pieces(text: str, size: int) -> None:
    unfinished = Unfinished()
    taken: list[str] = []
    for start in range(0, len(text), size):
        taken += unfinished.add(text[start : start + size])
        assert unfinished.last_lines(6, 20).replace("\n", "") or not unfinished.text.strip("\n")
    taken += unfinished.take()
    assert "".join(taken).replace("\n", "") == text.replace("\n", "")
    assert unfinished.text == "" and unfinished.take() == [""]
