"""The loss is taken over the question too."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusRecipe

FAILS = "test_only_the_answer_is_learned"


class Recipe(AbacusRecipe):
    learns_questions = True


class Broken(Abacus):
    recipe_class = Recipe
