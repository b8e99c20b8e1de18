"""A field added to `SFTOptions` with its facts is a flag, a key and a check, without any other edit."""

from __future__ import annotations

import subprocess
import sys

import pytest
from locations import ROOT

#: Replaces the options before anything reads them, as an edit of the file would.
SCRIPT = """
from dataclasses import dataclass, replace
from pathlib import Path

import medchat.api
from medchat.api import sft_options

@dataclass(frozen=True, slots=True)
class SFTOptions(sft_options.SFTOptions):
    new_knob: int = sft_options.setting(5, "新旋钮", "a new knob", allowed=sft_options.Range(1, 9))

sft_options.SFTOptions = medchat.api.SFTOptions = SFTOptions

import click
from medchat.commands.sft.command import command
from medchat.errors import UsageError
from medchat.sft_job.keys import KEYS
from medchat.sft_job.settings import checked_value
from medchat.training.options import check_options

help_page = command.get_help(click.Context(command))
assert "--new-knob" in help_page
assert "a new knob" in help_page or "新旋钮" in help_page
assert checked_value("new_knob", 7, "--new-knob") == 7
options = SFTOptions(Path("model"), Path("output"))
check_options(options)
for refuse in (lambda: check_options(replace(options, new_knob=0)), lambda: checked_value("new_knob", 0, "x")):
    try:
        refuse()
    except UsageError:
        continue
    raise AssertionError("0 was taken")
page = Path("docs/sft.md").read_text(encoding="utf-8")
print(*[name for name in KEYS if KEYS[name].flag not in page])
"""


@pytest.mark.torch
def test_a_new_field_is_a_flag_a_key_and_a_check_and_misses_its_row_on_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["new_knob"]
