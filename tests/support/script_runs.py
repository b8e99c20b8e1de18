"""Running the shell scripts as a user does, with a `medchat` of the test's own on PATH."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from locations import ROOT


def program(folder: Path, source: str, name: str = "medchat") -> Path:
    """Write a program and return the folder it is in."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{source}\n", encoding="utf-8")
    path.chmod(0o755)
    return folder


def run(
    name: str,
    *arguments: str,
    folder: Path,
    path: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a script with `folder` as the working directory."""
    kept = {
        variable: value
        for variable, value in os.environ.items()
        if variable
        not in ("BACKBONE", "MODEL", "ADAPTER", "ALPACA", "TEMPLATE", "DATA", "OUTPUT", "MEDCHAT_VENV")
    }
    return subprocess.run(
        ["sh", str(ROOT / "scripts" / name), *arguments],
        cwd=folder,
        env={**kept, "PATH": path, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def words(tmp_path: Path, name: str, *arguments: str, **environment: str) -> list[list[str]]:
    """Return the words of each `medchat` that the script runs."""
    told = program(tmp_path / "bin", 'for word in "$@"; do printf "%s\\037" "$word"; done; printf "\\036"')
    path = f"{told}{os.pathsep}{os.environ['PATH']}"
    ended = run(name, *arguments, folder=tmp_path, path=path, environment=environment)
    assert ended.returncode == 0, ended.stderr
    return [call.split("\x1f")[:-1] for call in ended.stdout.split("\x1e")[:-1]]


def flag(call: list[str], name: str) -> str | None:
    return call[call.index(name) + 1] if name in call else None
