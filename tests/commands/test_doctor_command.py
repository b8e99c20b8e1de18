"""`medchat doctor` as a user reads it."""

from __future__ import annotations

import re

import pytest
from cli_program import Call
from rich.cells import cell_len

from medchat.commands.doctor import CheckedItem

pytest_plugins = ("cli_program",)


@pytest.fixture
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CheckedItem("torch devices", "ok", "2.13.0")
    monkeypatch.setattr("medchat.commands.doctor.torch_devices", lambda: iter((found,)))


@pytest.mark.usefixtures("no_devices")
def test_what_is_looked_at_is_named_in_chinese_and_lines_up(call: Call) -> None:
    shown = call("doctor").out.splitlines()[1:]
    rows = [
        re.fullmatch(r" [✓!✗] (\S+(?: \S+)?) +(\S.*)", line) for line in shown if not line.startswith("    ")
    ]
    names = [row[1] for row in rows if row]
    assert {"配置", "数据", "缓存", "编码", "内存", "插件 chatglm", "计算设备"} <= set(names)
    assert len({cell_len(row[0]) - cell_len(row[2]) for row in rows if row}) == 1 and None not in rows


@pytest.mark.usefixtures("no_devices")
def test_names_for_programs_do_not_depend_on_the_language(call: Call) -> None:
    names = [
        [item["name"] for item in call("--lang", language, "doctor", "--json").one()["findings"]]
        for language in ("zh", "en")
    ]
    assert names[0] == names[1] and {"config", "memory", "plugin chatglm", "torch devices"} <= set(names[0])
