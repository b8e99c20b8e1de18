"""The tutorial for plugins is followed to the letter, from an empty folder to an answer."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from cli_program import Outcome, run
from locations import ROOT
from plugin_packages import write_distribution

PAGE = (ROOT / "docs" / "plugins" / "tutorial.md").read_text(encoding="utf-8")
#: A file to write, commands to type, or what the last of them prints.
STEP = re.compile(r"`([\w./-]+\.py)`:\n\n```python\n(.*?)```|```sh\n(.*?)```|```text\n(.*?)```", re.S)


class Reader:
    """Somebody who types what the page says, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site-packages"
        self.site.mkdir()
        self.last = Outcome(0, "", "")
        self.typed: list[str] = []

    def type(self, line: str) -> None:
        words, self.typed = shlex.split(line), [*self.typed, line]
        python_path = f"{self.folder / 'medchat-haiku'}:{self.site}:{':'.join(sys.path)}"
        if words[:3] == ["python", "-m", "pip"]:  # without network, into this folder
            entry_points = {"medchat": {"haiku": "medchat_haiku"}}
            write_distribution(self.site, words[-1], entry_points, version="0.1.0")
        elif words[0] == "medchat":
            stdin = "青蛙\n" if words[1] == "chat" else ""
            self.last = run(*words[1:], cwd=self.folder, stdin=stdin, PYTHONPATH=python_path)
            assert self.last.code == 0, f"{line}\n{self.last}"
        else:
            done = subprocess.run(
                [sys.executable, "-B", *words[1:]],
                cwd=self.folder,
                env={"PYTHONPATH": python_path, "PATH": "", "HOME": str(self.folder)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_tutorial_ends_in_a_chat(tmp_path: Path) -> None:
    reader, written = Reader(tmp_path), 0
    for name, source, commands, printed in STEP.findall(PAGE):
        if name:
            (tmp_path / name).write_text(source, encoding="utf-8")
            written += 1
        elif printed:
            assert reader.last.out == printed
        else:
            for line in commands.splitlines():
                reader.type(line)
    assert written == 3 and len(reader.typed) == 11
    assert reader.typed[-1].startswith("medchat chat") and reader.last.out.startswith("跳入，")
    assert PAGE.count("```") == 2 * len(STEP.findall(PAGE)), "a block that nobody follows"
