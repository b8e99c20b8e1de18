"""The example plugins keep to the properties of `medchat.testing`, each in less than a hundred lines of code."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from locations import ROOT
from plugin_packages import code_lines

from medchat.testing import BackboneTests

EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())


def backbone_of(example: str) -> Any:
    """Return the backbone that an example offers."""
    folder = str(ROOT / "examples" / example)
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(example.replace("-", "_")).medchat_backbones()[0]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_less_than_a_hundred_lines_of_code(example: Path) -> None:
    lines = sum(code_lines(path.read_text(encoding="utf-8")) for path in example.glob("*.py"))
    assert 10 < lines < (30 if example.name == "medchat-hf" else 100)


class TestEcho(BackboneTests):
    backbone = backbone_of("medchat-echo")


@pytest.mark.torch
class TestHF(BackboneTests):
    backbone = backbone_of("medchat-hf")
