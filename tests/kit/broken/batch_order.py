"""A batch comes sorted by length, and nobody puts it back."""

from __future__ import annotations

from collections.abc import Sequence

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Completion, GenerationConfig

FAILS = "test_a_batch_answers_as_each_prompt_alone"


class Model(AbacusModel):
    def generate_batch(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        return super().generate_batch(sorted(prompts, key=self.count, reverse=True), config)


class Broken(Abacus):
    model_class = Model
