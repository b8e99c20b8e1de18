"""What is to be typed next is one line, harmless on a terminal, and names the very folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_program import Call
from scripted_recipe import Pupil

from medchat.sanitize import sanitize
from medchat.sft_job.shell_words import joined, quoted

pytest_plugins = ("cli_program",)

PLAIN = ("plain", "two words", "中文 目录", "it's", "$HOME", "", "~", "*", "🙂")
STRANGE = (
    "\x1b]0;title\x07",
    "a\x1b[31m'b\\",
    "line\nbreak",
    "tab\t",
    "\x7f\x9b2J",
    "tеxt\u202eevil",
    "\udcff",
    "0\x010",
)


@pytest.mark.parametrize("word", [*PLAIN, *STRANGE])
def test_the_shell_reads_the_very_word(word: str) -> None:
    shown = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(word)}"], stdout=subprocess.PIPE, check=True
    ).stdout
    assert shown == word.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("word", STRANGE)
def test_nothing_in_it_commands_the_terminal(word: str) -> None:
    line = joined(["medchat", "chat", "--model", word])
    assert sanitize(line) == line and "\n" not in line and "\t" not in line


def test_the_command_after_a_run_is_harmless_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    pupil = Pupil(tmp_path / "a\x1b[31mb")
    monkeypatch.syspath_prepend(pupil.site)
    ended = call(*pupil.flags)
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out + ended.err and r"a\x1b[31mb" in ended.out
