"""An answer is scored without its prompt."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel

FAILS = "test_scores_are_those_of_generation"


class Model(AbacusModel):
    def scored(self, prompt: list[int]) -> list[int]:
        return prompt[:1]


class Broken(Abacus):
    model_class = Model
