"""What can be said of a ChatGLM folder without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chatglm_variants import (
    load,
    variant,
)
from medchat_chatglm.inspection import inspect_chatglm

pytest_plugins = ("chatglm_variants",)
pytestmark = pytest.mark.torch


def test_inspection_imports_no_torch_and_says_what_the_folder_is(tiny: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from medchat_chatglm.inspection import inspect_chatglm\n"
        "card = inspect_chatglm(pathlib.Path(sys.argv[1]))\n"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "print(card.layers, card.hidden_size, card.template, card.context_length, card.parameters, heavy)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny)], capture_output=True, text=True, env=env, check=True
    )
    model = load(tiny).model
    assert done.stdout.split()[:5] == [
        "2", "32", "chatglm_rounds", "2048", str(sum(p.numel() for p in model.parameters()))
    ]  # fmt: skip
    assert done.stdout.rstrip().endswith("set()")


def test_inspection_of_what_is_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert inspect_chatglm(tmp_path) is None
    assert inspect_chatglm(tmp_path / "absent") is None


def test_inspection_says_when_a_checkpoint_cannot_chat(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model")
    (folder / "ice_text.model").unlink()
    card = inspect_chatglm(folder)
    assert card is not None and any("无法对话" in note for note in card.notes)
