"""The card names another template than `template` gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from abacus_backbone import Abacus

from medchat.api import ModelCard

FAILS = "test_inspect_describes_the_model"


class Broken(Abacus):
    def inspect(self, path: Path) -> ModelCard | None:
        card = super().inspect(path)
        return card and replace(card, template="bare")
