"""Tokens are drawn from a generator that all share."""

from __future__ import annotations

import random

from abacus_backbone import Abacus, AbacusModel

from medchat.api import GenerationConfig

FAILS = "test_a_seed_repeats_an_answer"


class Model(AbacusModel):
    def choose(self, config: GenerationConfig, luck: random.Random) -> int:
        return super().choose(config, random.Random())


class Broken(Abacus):
    model_class = Model
