"""A batch draws from a generator of its own, whatever seed is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Completion, GenerationConfig

FAILS = "test_a_seed_repeats_an_answer"


class Model(AbacusModel):
    def generate_batch(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        return super().generate_batch(prompts, replace(config, seed=99))


class Broken(Abacus):
    model_class = Model
