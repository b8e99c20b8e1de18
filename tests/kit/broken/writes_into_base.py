"""Training leaves a cache beside the weights."""

from __future__ import annotations

from pathlib import Path

from abacus_backbone import Abacus, AbacusRecipe

from medchat.api import SFTOptions

FAILS = "test_fine_tuning_leaves_the_base_alone"


class Recipe(AbacusRecipe):
    def begin(self, output: Path, options: SFTOptions) -> tuple[int, int]:
        (options.model / "features.cache").write_text("cached")
        return super().begin(output, options)


class Broken(Abacus):
    recipe_class = Recipe
