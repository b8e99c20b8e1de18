"""Of rows that move only what differs is written, and the terminal shows what a full drawing would show."""

from __future__ import annotations

import io

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from medchat.repl.moving_rows import MovingRows

WIDTH, HEIGHT = 12, 6
STYLES = [None, Style(bold=True), Style(color="red"), Style(underline=True), Style(bgcolor="blue")]

Rows = list[list[Segment]]


class Terminal:
    """Rows drawn on an emulated terminal that knows scrollback."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.screen = pyte.HistoryScreen(WIDTH, HEIGHT, history=1000, ratio=0.5)
        self._feed = pyte.Stream(self.screen)
        console = Console(
            file=self.stream, force_terminal=True, color_system="standard", width=WIDTH, height=HEIGHT
        )
        self.rows = MovingRows(console)
        self.printed: list[str] = []
        self.moving: list[str] = []

    def draw(self, printed: Rows, moving: Rows) -> str:
        """Draw, and return what was written."""
        if printed:
            self.rows.print_above(printed, moving)
        else:
            self.rows.draw(moving)
        self.printed += map(text_of, printed)
        self.moving = list(map(text_of, moving))
        written = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        self._feed.feed(written.replace("\n", "\r\n"))
        return written

    def shown(self) -> list[str]:
        above = [self._text(row) for row in self.screen.history.top]
        return [*above, *(self._text(self.screen.buffer[y]) for y in range(HEIGHT))]

    def _text(self, row: object) -> str:
        return "".join(row[x].data for x in range(WIDTH)).rstrip()  # type: ignore[index]


def text_of(row: list[Segment]) -> str:
    return "".join(segment.text for segment in row).rstrip()


TEXT = st.text(st.sampled_from("ab头痛 "), min_size=1, max_size=3)
SEGMENT = st.builds(Segment, TEXT, st.sampled_from(STYLES))
ROW = st.lists(SEGMENT, max_size=2)
#: Fewer moving rows than the terminal has, as a screen draws them.
FRAME = st.tuples(st.lists(ROW, max_size=3), st.lists(ROW, max_size=HEIGHT - 2))
SCROLLED = [[Segment(word)] for word in ("一", "二", "三", "四")]


@settings(max_examples=100)
@example([([], SCROLLED), ([], [*SCROLLED[2:], [Segment("五")]]), ([], SCROLLED[3:])])
@example([([], SCROLLED), (SCROLLED[:3], SCROLLED[3:]), (SCROLLED[3:], [])])
@given(st.lists(FRAME, min_size=1, max_size=6))
def test_the_terminal_shows_what_was_printed_and_below_it_what_moves(frames: list[tuple[Rows, Rows]]) -> None:
    terminal = Terminal()
    for printed, moving in frames:
        terminal.draw(printed, moving)
        expected = [*terminal.printed, *terminal.moving]
        shown = terminal.shown()
        assert shown[: len(expected)] == expected
        assert not any(shown[len(expected) :])
    assert terminal.screen.cursor.hidden == bool(terminal.moving)


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        (["头痛"], ["头痛三天"], "三天"),
        (["头痛"], ["头痛", "发热"], "\n发热"),
        (["头痛"], ["头痛三", "发热"], "三\n发热"),
        (["头痛", "发热"], ["头痛", "发热"], ""),
        (["头痛", "发热"], ["头痛", "咳嗽"], "\r\x1b[J咳嗽"),
        (["一", "二", "三", "四"], ["二", "三", "四", "五"], "\x1b[3A\r\x1b[1M\x1b[2B\x1b[J四\n五"),
    ],
)
def test_only_what_differs_is_written(before: list[str], after: list[str], written: str) -> None:
    terminal = Terminal()
    terminal.draw([], [[Segment(text)] for text in before])
    assert terminal.draw([], [[Segment(text)] for text in after]) == written


def test_a_block_that_stands_there_already_is_not_written_again() -> None:
    terminal = Terminal()
    rows = [[Segment("头痛", Style(bold=True))], [Segment("发热")]]
    terminal.draw([], rows)
    assert terminal.draw(rows, [[Segment("咳嗽")]]) == "\n咳嗽"
    assert terminal.draw([[Segment("咳嗽")]], []) == "\n\x1b[?25h"


def test_blanks_that_nobody_sees_are_not_written_and_those_with_a_background_are() -> None:
    terminal = Terminal()
    assert terminal.draw([[Segment("头", Style(color="red")), Segment("  ", Style(color="red"))]], []) == (
        "\x1b[31m头\x1b[0m\n"
    )
    assert "  " in terminal.draw([[Segment("  ", Style(bgcolor="red"))]], [])


def test_after_the_shell_has_written_everything_is_drawn_below_it_with_the_cursor_hidden_again() -> None:
    terminal = Terminal()
    rows = [[Segment("头痛")], [Segment("发热")]]
    terminal.draw([], rows)
    terminal.rows.leave()
    assert terminal.draw([], [*rows, [Segment("咳嗽")]]) == "\x1b[?25l\r\x1b[J头痛\n发热\n咳嗽"
    assert terminal.draw([], [*rows, [Segment("咳嗽三天")]]) == "三天"


def test_after_the_window_has_changed_everything_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setenv("COLUMNS", "80")
    rows = MovingRows(console)
    rows.draw([[Segment("头痛")], [Segment("发热")]])
    console.width = 40
    console.file = written = io.StringIO()
    rows.draw([[Segment("头痛")], [Segment("发热三天")]])
    assert written.getvalue() == "\x1b[1A\r\x1b[J头痛\n发热三天"
