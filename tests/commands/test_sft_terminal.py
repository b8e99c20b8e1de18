"""What a person sees of a fine-tuning run on a terminal of 80 columns, in both languages."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from child_process import command
from pseudo_terminal import Terminal
from scripted_recipe import Pupil

pytestmark = pytest.mark.terminal

BAR = "━"
#: A row of the bar, whole: what is done, the step, the loss, the speed and the time left.
FIGURES = {
    "zh": rf"训练 [{BAR}╸╺]+ +\d+% 第 \d+/\d+ 步  损失 \d\.\d{{3}}  1234 词元/秒  剩余 \d+:\d\d",
    "en": rf"training [{BAR}╸╺]+ +\d+% step \d+/\d+  loss \d\.\d{{3}}  1234 tokens/s  \d+:\d\d left",
}
DONE = {"zh": "完成：结果在", "en": "done: the result is in"}


@contextmanager
def run_of(pupil: Pupil, folder: Path, *more: str, **environment: str) -> Iterator[Terminal]:
    screen = Terminal(
        folder,
        {},
        rows=40,
        command=command(*pupil.flags, *more),
        environment={**pupil.environment, **environment},
    )
    try:
        yield screen
    finally:
        screen.close()


@pytest.mark.parametrize("language", ["zh", pytest.param("en", marks=pytest.mark.slow)])
def test_the_bar_stays_on_one_row_and_the_rest_above_it(tmp_path: Path, language: str) -> None:
    pupil = Pupil(tmp_path / "pupil", steps=300, seconds=0.01)
    with run_of(pupil, tmp_path, "--lang", language) as screen:
        screen.wait(lambda: any(re.search(FIGURES[language], row) for row in screen.shown()), "the bar")
        assert sum(BAR in row for row in screen.everything()) == 1
        before = screen.attributes_before
        assert screen.exit_code() == 0
        screen.wait_for(DONE[language])
        rows = screen.everything()
        (bar,) = (row for row in rows if BAR in row)
        assert "100%" in bar and "300/300" in bar and re.search(FIGURES[language], bar)
        assert rows.index(bar) < next(at for at, row in enumerate(rows) if row.startswith(DONE[language]))
        assert not screen.screen.cursor.hidden and screen.attributes() == before


def test_what_is_learned_is_coloured_and_what_is_given_is_not(tmp_path: Path) -> None:
    pupil = Pupil(tmp_path / "pupil")
    with run_of(pupil, tmp_path, "--lang", "en") as screen:
        assert screen.exit_code() == 0
        screen.wait_for(DONE["en"])
        rows = [*screen.screen.history.top, *screen.screen.buffer.values()]
        (given,) = (row for row in rows if text_of(row).startswith("问："))
        (learned,) = (row for row in rows if text_of(row).startswith("答：<sop>"))
    assert {cell.fg for cell in characters(given)} == {"default"}
    cells = characters(learned)
    text = "".join(cell.data for cell in cells)
    start = text.index("回答")
    assert all(cell.fg == "green" and cell.bold for cell in cells[start:])
    assert not any(cell.fg == "green" for cell in cells[:start])
    assert text.endswith("</s>") and "⟦" not in text


def characters(row: Any) -> list[Any]:
    return [row[column] for column in range(80) if row[column].data.strip()]


def text_of(row: Any) -> str:
    return "".join(cell.data for cell in characters(row))


def test_without_colour_the_terminal_gets_plain_lines_and_marks(tmp_path: Path) -> None:
    pupil = Pupil(tmp_path / "pupil")
    with run_of(pupil, tmp_path, NO_COLOR="1") as screen:
        assert screen.exit_code() == 0
        screen.wait_for(DONE["zh"])
        shown = "\n".join(screen.everything())
        assert BAR not in shown and "⟦回答" in shown and b"\x1b" not in bytes(screen.raw)


def test_ctrl_c_says_that_it_saves_and_leaves_a_clean_terminal(tmp_path: Path) -> None:
    pupil = Pupil(tmp_path / "pupil", steps=3000, seconds=0.02)
    with run_of(pupil, tmp_path) as screen:
        screen.wait(lambda: any(re.search(FIGURES["zh"], row) for row in screen.shown()), "the bar")
        screen.process.send_signal(signal.SIGINT)
        assert screen.exit_code() == 130
        screen.wait_for("完成这一步后保存并停止", "stopped and saved", "medchat sft --resume")
        assert not screen.screen.cursor.hidden and screen.attributes() == screen.attributes_before


def test_where_memory_is_tight_a_person_is_asked_and_no_stays_no(tmp_path: Path) -> None:
    pupil = Pupil(tmp_path / "pupil", needs=900, free=1000)
    with run_of(pupil, tmp_path) as screen:
        screen.wait_for("开始训练？")
        screen.type("n\r")
        assert screen.exit_code() == 0
        screen.wait_for("没有开始")
    assert not pupil.output.exists()
    with run_of(pupil, tmp_path, "--yes") as screen:
        assert screen.exit_code() == 0
        screen.wait_for(DONE["zh"])
    assert pupil.run("--output", str(tmp_path / "unattended")).code == 0  # nobody to ask: it starts
