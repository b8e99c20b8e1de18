"""What is learned follows another prompt than chat asks with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from abacus_backbone import Abacus, AbacusRecipe, prompt_ids

from medchat.api import SFTData, Text

FAILS = "test_one_example_is_learned_by_heart"


class Recipe(AbacusRecipe):
    def lessons(self, data: SFTData) -> Mapping[tuple[int, ...], Sequence[int]]:
        prompts = [tuple(prompt_ids([Text(one.question)])) for one in data.train]
        return dict(zip(prompts, super().lessons(data).values(), strict=True))


class Broken(Abacus):
    recipe_class = Recipe
