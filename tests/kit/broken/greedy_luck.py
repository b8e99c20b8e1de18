"""A greedy answer depends on the seed."""

from __future__ import annotations

import random
from dataclasses import replace

from abacus_backbone import Abacus, AbacusModel

from medchat.api import GenerationConfig

FAILS = "test_greedy_answers_repeat"


class Model(AbacusModel):
    def choose(self, config: GenerationConfig, luck: random.Random) -> int:
        return super().choose(replace(config, greedy=config.seed is None), luck)


class Broken(Abacus):
    model_class = Model
