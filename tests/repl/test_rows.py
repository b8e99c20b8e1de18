"""Two columns of text, for commands that list what there is."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from medchat.repl.rows import two_columns

ROWS = [(f"/命令{number}", "说明") for number in range(9)]
LONG = ("/compare /对比 [base|adapter 路径|model 路径] [问题]", "说明")


def test_columns_line_up_by_cells() -> None:
    lines = two_columns([("/undo", "甲"), ("/撤销", "乙"), ("/重新回答", "丙")], 80).splitlines()
    assert len({cell_len(line[:-1]) for line in lines}) == 1


def test_one_long_row_leaves_the_others_in_columns() -> None:
    lines = two_columns([*ROWS, LONG], 60).splitlines()
    assert len(lines) == len(ROWS) + 2 and lines[-2:] == [f"  {LONG[0]}", "      说明"]
    assert all(line == f"  /命令{number}  说明" for number, line in enumerate(lines[:-2]))


@pytest.mark.parametrize("width", [40, 60, 80])
def test_lines_that_go_on_are_indented_and_lose_nothing(width: int) -> None:
    text = "让演示模型照样回答刚才没学过的问题，内容没有意义。" * 4
    for row in (("/insist /硬答", text), ("/compare /对比 [base|adapter 路径]" * 2, text)):
        lines = two_columns([*ROWS, row], width).splitlines()[len(ROWS) :]
        assert all(line.startswith("  ") and cell_len(line) <= width for line in lines)
        assert "".join("".join(row).split()) == "".join("".join(lines).split())
    beside = two_columns([*ROWS, ("/insist /硬答", text)], width).splitlines()[len(ROWS) :]
    column = cell_len(beside[0][: beside[0].index("让")])
    assert len(beside) > 1 and all(len(line) - len(line.lstrip()) == column for line in beside[1:])


def test_where_many_rows_are_long_all_stand_one_above_the_other() -> None:
    lines = two_columns([*ROWS[:4], LONG, LONG], 60).splitlines()
    assert lines[:2] == ["  /命令0", "      说明"] and len(lines) == 12


def test_a_row_without_a_right_text_is_one_line() -> None:
    assert two_columns([(*LONG[:1], "")], 80).splitlines() == [f"  {LONG[0]}"]
