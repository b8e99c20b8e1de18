"""The optimizer is beside the result, pickled."""

from __future__ import annotations

import pickle
from pathlib import Path

from abacus_backbone import Abacus, AbacusRecipe

from medchat.api import SFTOptions

FAILS = "test_a_result_holds_safetensors_alone"


class Recipe(AbacusRecipe):
    def begin(self, output: Path, options: SFTOptions) -> tuple[int, int]:
        (output / "optimizer.pt").write_bytes(pickle.dumps({}))
        return super().begin(output, options)


class Broken(Abacus):
    recipe_class = Recipe
