"""The merged checkpoint is the base as it was: the adapter is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

from abacus_backbone import Abacus

from medchat.api import LoadOptions

FAILS = "test_a_merge_agrees_with_its_adapter"


class Broken(Abacus):
    def save_merged(self, options: LoadOptions, folder: Path, dtype: str) -> None:
        shutil.copytree(options.model, folder, dirs_exist_ok=True)
