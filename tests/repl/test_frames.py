"""The redrawn part of an answer, frame by frame: nothing twice on the screen, nothing left behind."""

from __future__ import annotations

import io
from itertools import pairwise

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchat.repl.rich_screen import RichScreen
from medchat.repl.screen import Tone

pytestmark = pytest.mark.terminal


class Frames(io.StringIO):
    """A terminal that remembers what it showed after every write."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
        self.screen.set_mode(pyte.modes.LNM)  # a real terminal's line discipline does this
        self._stream = pyte.Stream(self.screen)
        self.frames: list[list[str]] = []

    def write(self, text: str) -> int:
        self._stream.feed(text)
        self.frames.append(self.rows())
        return len(text)

    def rows(self) -> list[str]:
        """The scrollback and the screen."""
        width = self.screen.columns
        above = ["".join(row[column].data for column in range(width)) for row in self.screen.history.top]
        return [row.rstrip() for row in (*above, *self.screen.display)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Frames:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "8")
    return Frames(30, 8)


def answer(screen: RichScreen, text: str, size: int) -> None:
    for start in range(0, len(text), size):
        screen.piece(text[start : start + size])
    screen.end_answer()


TEXT = "".join(f"第{number}段，内容各不相同。\n第{number}段的次行\n\n" for number in range(7))


@pytest.mark.parametrize("size", [1, 5, 17])
def test_no_row_is_ever_on_the_screen_twice(
    small: Frames, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medchat.repl.rich_screen.FRAME_SECONDS", 0.0)
    answer(RichScreen(small), TEXT, size)
    for frame in small.frames:
        filled = [row for row in frame if row]
        assert len(filled) == len(set(filled)), frame
    assert [row for row in small.rows() if row] == [row for row in TEXT.split("\n") if row]


def test_a_remark_during_an_answer_stands_above_its_unfinished_part(small: Frames) -> None:
    screen = RichScreen(small)
    screen.piece("完成的一段\n\n没完")
    screen.tell("库的提示", Tone.WARNING)
    screen.piece("成的一段")
    screen.end_answer()
    assert [row for row in small.rows() if row] == ["完成的一段", "▌ 库的提示", "没完成的一段"]


def test_what_was_waited_for_leaves_no_trace(small: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medchat.repl.rich_screen.FRAME_SECONDS", 0.0)
    screen = RichScreen(small)
    for seconds in range(3):
        screen.wait_for("正在思考", seconds)
        screen.tick()
    assert any(row == "正在思考… 2s" for row in small.rows())
    answer(screen, "好的", 1)
    assert [row for row in small.rows() if row] == ["好的"]
    assert not small.screen.cursor.hidden


def test_each_frame_is_one_write_so_that_none_is_seen_half_done(small: Frames) -> None:
    screen = RichScreen(small)
    for character in "很长的一段话" * 20:
        screen.piece(character)
        screen.tick()
    screen.end_answer()
    lengths = [sum(map(len, frame)) for frame in small.frames if any(frame)]
    assert all(later >= earlier for earlier, later in pairwise(lengths[:-2]))


@settings(max_examples=15)
@given(
    st.lists(
        st.sampled_from(
            ["# 甲\n\n", "乙丙" * 30, "\n\n", "- 丁\n", "```\n", "戊\n", "> 己\n", "|a|b|\n|-|-|\n"]
        ),
        max_size=8,
    )
)
def test_the_scrollback_ends_up_as_if_the_answer_had_come_at_once(pieces: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "30")
        patch.setenv("LINES", "8")
        patch.setattr("medchat.repl.rich_screen.FRAME_SECONDS", 0.0)
        slow, fast = Frames(30, 8), Frames(30, 8)
        answer(RichScreen(slow), "".join(pieces), 1)
        answer(RichScreen(fast), "".join(pieces), 10**6)

    def content(frames: Frames) -> list[str]:
        return "\n".join(frames.rows()).strip().split("\n")

    assert content(slow) == content(fast)
