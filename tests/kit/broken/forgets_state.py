"""A run continues from the step that was saved, but not from its state."""

from __future__ import annotations

from pathlib import Path

from abacus_backbone import Abacus, AbacusRecipe

from medchat.api import SFTOptions

FAILS = "test_a_run_that_goes_on_ends_as_one_that_never_stopped"


class Recipe(AbacusRecipe):
    def begin(self, output: Path, options: SFTOptions) -> tuple[int, int]:
        return super().begin(output, options)[0], 7


class Broken(Abacus):
    recipe_class = Recipe
