"""A broken third-party plugin as somebody at the terminal sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from locations import ROOT
from plugin_packages import write_distribution
from plugin_sites import echo_site

pytest_plugins = ("plugin_sites",)


def run(arguments: Sequence[str], home: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PYTHONPATH": ":".join(map(str, [ROOT, ROOT / "plugins" / "chatglm", *folders])),
        "MEDCHAT_HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    command = [sys.executable, "-m", "medchat", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def break_everything(site: Path) -> None:
    groups = {group: {"broken": "broken_module"} for group in ("medchat", "medchat.extensions")}
    write_distribution(site, "broken", groups, {"broken_module": "raise SystemExit(3)"})


def test_a_broken_third_party_plugin_does_not_change_help(tmp_path: Path) -> None:
    break_everything(tmp_path / "site")
    clean, broken = run(["--help"], tmp_path), run(["--help"], tmp_path, tmp_path / "site")
    assert clean.returncode == 0
    assert (broken.returncode, broken.stdout, broken.stderr) == (0, clean.stdout, clean.stderr)


def test_a_broken_third_party_plugin_only_adds_its_rows_to_the_list(tmp_path: Path) -> None:
    break_everything(tmp_path / "site")
    clean = run(["plugins", "list"], tmp_path)
    broken = run(["plugins", "list"], tmp_path, tmp_path / "site")
    assert (broken.returncode, broken.stderr) == (0, clean.stderr)
    others = [line for line in broken.stdout.splitlines() if not line.startswith("broken")]
    assert others == clean.stdout.splitlines()
    assert any(line.startswith("chatglm") for line in others)


def test_a_chat_with_another_backbone_gains_one_line_naming_the_broken_plugin(tmp_path: Path) -> None:
    fine, site = tmp_path / "fine", tmp_path / "site"
    echo_site(fine)
    break_everything(site)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "echo.json").write_text('{"context_length": 64}', encoding="utf-8")
    question = ["ask", "头痛怎么办？", "--backbone", "echo", "--model", str(tmp_path / "model")]
    clean, broken = run(question, tmp_path / "a", fine), run(question, tmp_path / "b", fine, site)
    assert (clean.returncode, clean.stdout) == (0, "头痛怎么办？\n")
    assert (broken.returncode, broken.stdout) == (clean.returncode, clean.stdout)
    added = [line for line in broken.stderr.splitlines() if line not in clean.stderr.splitlines()]
    assert len(added) == 1
    assert "broken" in added[0]
