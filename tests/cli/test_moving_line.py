"""A line of stderr that moves: drawn again, gone in the end, and nothing at all where none can be redrawn."""

from __future__ import annotations

import io
import re

import pytest

from medchat.cli.output import MovingLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, pause: float, **environment: str) -> str:
    """Return what three texts write, with so many seconds between them."""
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    moments = iter([100.0, 100.0 + pause, 100.0 + 2 * pause])
    monkeypatch.setattr("medchat.cli.output.time.monotonic", lambda: next(moments))
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(KeyError), MovingLine() as line:
        for text in ("甲甲甲", "乙", "丙"):
            if line.moves:
                line.show(text)
        raise KeyError
    return stream.getvalue()


def test_each_text_takes_the_place_of_the_one_before_and_the_last_one_goes_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = drawn(monkeypatch, Terminal(), 1.0)
    assert re.split("\r\x1b\\[K", written) == ["", "甲甲甲", "乙", "丙", ""]


def test_texts_that_follow_at_once_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written = drawn(monkeypatch, Terminal(), 0.06)
    assert re.split("\r\x1b\\[K", written) == ["", "甲甲甲", "丙", ""]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_nothing_is_written_where_no_line_can_be_redrawn(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert drawn(monkeypatch, Terminal(), 1.0, **environment) == ""


def test_nothing_is_written_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, io.StringIO(), 1.0) == ""
