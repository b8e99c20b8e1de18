"""`medchat doctor` as a user reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_program import Call
from native_engine import COMPILED
from rich.cells import cell_len

from medchat.commands.doctor import CheckedItem, native_engine
from medchat.inference.cpu_engine.library import open_library

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
    assert {"配置", "数据", "缓存", "编码", "内存", "插件 chatglm", "原生引擎", "计算设备"} <= set(names)
    assert len({cell_len(row[0]) - cell_len(row[2]) for row in rows if row}) == 1 and None not in rows


@pytest.mark.usefixtures("no_devices")
def test_names_for_programs_do_not_depend_on_the_language(call: Call) -> None:
    names = [
        [item["name"] for item in call("--lang", language, "doctor", "--json").one()["findings"]]
        for language in ("zh", "en")
    ]
    assert names[0] == names[1] and {"config", "memory", "plugin chatglm", "torch devices"} <= set(names[0])


@COMPILED
@pytest.mark.usefixtures("no_devices")
def test_the_native_engine_is_named_with_the_instructions_that_it_uses(call: Call) -> None:
    (item,) = [item for item in call("doctor", "--json").one()["findings"] if item["name"] == "native engine"]
    assert (item["status"], item["detail"]) == ("ok", open_library().fastest)


def test_a_machine_without_the_library_is_warned_and_told_what_to_install(tmp_path: Path) -> None:
    (item,) = native_engine(tmp_path / "_native.so")
    assert item.status == "warn" and "g++" in item.remedy and "torch" in item.remedy
