"""`medchat doctor`: checks whether this machine is ready, and says what to do if not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from medchat import __version__, paths
from medchat.chat.model_choice import open_registry
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import aligned, answer_stream, write_out
from medchat.disk import free_space
from medchat.errors import MedchatError
from medchat.inference.cpu_engine.library import LIBRARY_FILE, chosen_instructions, open_library
from medchat.language import say
from medchat.registry import Registry
from medchat.sanitize import sanitize_line
from medchat.settings import Settings

#: The names of the checks in Chinese; programs and libraries keep their own names.
_NAMES = {
    "cache": "缓存",
    "config": "配置",
    "data": "数据",
    "encoding": "编码",
    "memory": "内存",
    "plugin": "插件",
    "settings": "设置",
}


@dataclass(frozen=True, slots=True)
class CheckedItem:
    """One check: `status` is ok, warn or fail; `remedy` what to do if it is not ok."""

    name: str
    status: str
    detail: str
    remedy: str = ""


def _versions() -> Iterator[CheckedItem]:
    ok = sys.version_info >= (3, 11)
    yield CheckedItem(
        "python", "ok" if ok else "fail", platform.python_version(), "" if ok else "Python >= 3.11"
    )
    for package in (
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "sentencepiece",
        "safetensors",
        "prompt-toolkit",
        "rich",
        "pluggy",
        "cpm-kernels",
    ):
        try:
            yield CheckedItem(package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield CheckedItem(
                package, "fail", say("没有安装", "not installed"), "pip install -c constraints.txt -e ."
            )
    yield CheckedItem("sqlite", "ok", sqlite3.sqlite_version)


def _folders() -> Iterator[CheckedItem]:
    for name, folder in (
        ("config", paths.config_dir()),
        ("data", paths.data_dir()),
        ("cache", paths.cache_dir()),
    ):
        existing, free = free_space(folder)
        writable = os.access(existing, os.W_OK | os.X_OK)
        room = f"{free / 1e9:.1f} GB"
        detail = str(folder) + say(f"（可用 {room}）", f" ({room} free)")
        remedy = (
            ""
            if writable
            else say("把 MEDCHAT_HOME 设为可写的目录", "set MEDCHAT_HOME to a folder you can write")
        )
        yield CheckedItem(name, "ok" if writable else "fail", detail, remedy)
        if folder.exists() and folder.stat().st_mode & 0o077:
            yield CheckedItem(
                name, "warn", say("其他用户可以访问", "accessible to other users"), f"chmod 700 {folder}"
            )


def _terminal() -> Iterator[CheckedItem]:
    encoding = (answer_stream().encoding or "?").lower()
    ok = "utf" in encoding
    yield CheckedItem(
        "encoding",
        "ok" if ok else "warn",
        encoding,
        "" if ok else say("把终端设为 UTF-8（export LANG=C.UTF-8）", "use UTF-8 (export LANG=C.UTF-8)"),
    )
    yield CheckedItem(
        "memory",
        "ok",
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
        + say(f"，{os.cpu_count()} 个 CPU", f", {os.cpu_count()} CPU"),
    )


def _plugins(registry: Registry, settings: Settings) -> Iterator[CheckedItem]:
    for name in registry.names():
        try:
            registry.backbone(name)
            yield CheckedItem(f"plugin {name}", "ok", say("可以加载", "loads"))
        except MedchatError as error:
            yield CheckedItem(f"plugin {name}", "warn", error.what, error.remedy or "medchat plugins list")
    values = {item.key.name: item.value for item in settings.effective()}
    for found in registry.extensions().doctor(values):
        yield CheckedItem("plugin", "ok" if found.ok else "warn", found.text, found.remedy)
    for failure in registry.failures:
        yield CheckedItem(f"plugin {failure.entry}", "warn", failure.reason, failure.distribution)


def torch_devices() -> Iterator[CheckedItem]:
    """Ask a child process for the devices: torch is not imported here, and a broken driver cannot crash us."""
    import subprocess

    script = (
        "import torch; print(torch.__version__, torch.get_num_threads(), "
        "'; '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 0:
        version, threads, devices = (*done.stdout.splitlines(), "", "", "")[:3]
        found = devices or say("没有 CUDA 设备", "no CUDA device")
        yield CheckedItem(
            "torch devices",
            "ok",
            say(f"{version}，{threads} 个线程；{found}", f"{version}, {threads} threads; {found}"),
        )
    else:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        yield CheckedItem("torch devices", "fail", last, "pip install -c constraints.txt -e .")


def native_engine(file: Path = LIBRARY_FILE) -> Iterator[CheckedItem]:
    """Check whether the library of the native engine, at `file`, can be used here."""
    try:
        library = open_library(file)
        chosen = chosen_instructions(library)
    except MedchatError as error:
        # Without it torch computes everything: slower, but complete.
        yield CheckedItem("native engine", "warn", error.what, error.remedy)
    else:
        yield CheckedItem("native engine", "ok", chosen)


def _named(item: CheckedItem) -> str:
    """Return the label of a check on the screen; `--json` has its name."""
    kind, _, rest = sanitize_line(item.name).partition(" ")
    if item.name == "torch devices":
        return say("计算设备", item.name)
    if item.name == "native engine":
        return say("原生引擎", item.name)
    return " ".join(filter(None, (say(_NAMES.get(kind, kind), kind), rest)))


def findings() -> list[CheckedItem]:
    """Run all checks and return the results in a fixed order."""
    found = [*_versions(), *_folders(), *_terminal()]
    try:
        settings = Settings.load()
    except MedchatError as error:
        found.append(
            CheckedItem(
                "settings", "fail", error.what + say(f"（{error.where}）", f" ({error.where})"), error.remedy
            )
        )
    else:
        found += [CheckedItem("settings", "warn", warning) for warning in settings.warnings]
        found += _plugins(open_registry(settings), settings)
    return [*found, *native_engine(), *torch_devices()]


@click.command(
    cls=LocalizedCommand,
    help=say("检查运行环境：版本、目录、插件、计算设备。", "Check versions, folders, plugins and devices."),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(as_json: bool) -> int:
    """Print the findings; exit 1 if anything fails."""
    found = findings()
    failed = any(item.status == "fail" for item in found)
    if as_json:
        report: dict[str, Any] = {
            "medchat": __version__,
            "ok": not failed,
            "findings": [asdict(item) for item in found],
        }
        write_out(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
        return int(failed)
    marks = {"ok": "✓", "warn": "!", "fail": "✗"}
    lines = [f"medchat {__version__}"]
    rows = [(marks.get(item.status, "?"), _named(item), sanitize_line(item.detail, 200)) for item in found]
    for item, line in zip(found, aligned(rows, indent=1, gap=1), strict=True):
        lines.append(line)
        if item.remedy and item.status != "ok":
            lines.append("     " + say("下一步：", "next: ") + sanitize_line(item.remedy, 200))
    write_out("\n".join(lines) + "\n")
    return int(failed)
