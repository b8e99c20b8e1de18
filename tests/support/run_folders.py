"""Output folders of runs in every state."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from medchat.api import SFTOptions
from medchat.training import checkpoint as checkpoints
from medchat.training.run_folder import RunFolder, open_run_folder


def options(folder: Path, **changes: Any) -> SFTOptions:
    model = folder / "base"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return replace(SFTOptions(model=model, output=folder / "out"), **changes)


def begun(folder: Path, **changes: Any) -> SFTOptions:
    """A run that stopped after one checkpoint."""
    wanted = options(folder, **changes)
    with open_run_folder(wanted, "data") as run:
        add_checkpoint(run, 4)
    return wanted


def add_checkpoint(run: RunFolder, step: int) -> Path:
    with checkpoints.new_checkpoint(run.checkpoints, step) as folder:
        (folder / "weights").write_bytes(os.urandom(100))
    return run.checkpoints / f"step-{step:08d}"
