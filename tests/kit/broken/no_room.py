"""A prompt that fills the context gets an empty answer."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel

FAILS = "test_a_prompt_that_is_too_long_is_a_usage_error"


class Model(AbacusModel):
    def refuse_prompt(self, tokens: int) -> None:
        pass

    def refuse_answer(self, tokens: int) -> None:
        super().refuse_prompt(tokens)


class Broken(Abacus):
    model_class = Model
