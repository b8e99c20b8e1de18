"""`inspect` reads config.json before it knows whose it is."""

from __future__ import annotations

import json
from pathlib import Path

from abacus_backbone import Abacus

from medchat.api import ModelCard

FAILS = "test_inspect_takes_any_folder"


class Broken(Abacus):
    def inspect(self, path: Path) -> ModelCard | None:
        if path.is_dir() and (path / "config.json").is_file():
            json.loads((path / "config.json").read_text())
        return super().inspect(path)
