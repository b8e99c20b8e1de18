"""The example plugins keep to the properties of `medchat.testing`, each in less than a hundred lines of code."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from locations import ROOT
from plugin_packages import code_lines
from plugin_sites import import_example

from medchat.testing import BackboneTests

EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_less_than_a_hundred_lines_of_code(example: Path) -> None:
    lines = sum(code_lines(path.read_text(encoding="utf-8")) for path in example.glob("*.py"))
    assert 10 < lines < (30 if example.name == "medchat-hf" else 100)


class TestEcho(BackboneTests):
    backbone = import_example("medchat-echo").medchat_backbones()[0]


@pytest.mark.torch
class TestHF(BackboneTests):
    backbone = import_example("medchat-hf").medchat_backbones()[0]


@pytest.mark.torch
class TestCharLM(BackboneTests):
    backbone = import_example("medchat-charlm").medchat_backbones()[0]
    shape: ClassVar = {"hidden_size": 32}
