"""The samples after training are not those of what is written."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel, AbacusRecipe

FAILS = "test_the_result_answers_as_the_model_that_was_trained"


class Recipe(AbacusRecipe):
    def said(self, trained: AbacusModel, question: str) -> str:
        return super().said(AbacusModel(trained.path, {}), question)


class Broken(Abacus):
    recipe_class = Recipe
