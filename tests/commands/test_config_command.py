"""`medchat config show` as a user reads it."""

from __future__ import annotations

import pytest
from cli_program import Call
from rich.cells import cell_len

pytest_plugins = ("cli_program",)


def test_origins_line_up_whatever_the_values_are_written_in(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_SYSTEM", "请用中文回答")
    monkeypatch.setenv("MEDCHAT_MODEL", "/data/模型/" + "很长的目录名/" * 9)
    lines = call("config", "show", "--origin").out.splitlines()
    starts = [cell_len(line.split("#")[0]) for line in lines]
    short = [start for line, start in zip(lines, starts, strict=True) if not line.startswith("model = ")]
    assert len(lines) > 15 and len(set(short)) == 1
    (long,) = [line for line in lines if line.startswith("model = ")]
    assert long.endswith('"  # MEDCHAT_MODEL')


def test_without_origin_a_line_is_name_and_value(call: Call) -> None:
    lines = call("config", "show").out.splitlines()
    assert all(" = " in line and "#" not in line and line == line.rstrip() for line in lines)
