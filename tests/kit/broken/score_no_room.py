"""A prompt and an answer that are longer than the context together are scored all the same."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel

FAILS = "test_a_score_that_does_not_fit_is_a_usage_error"


class Model(AbacusModel):
    def refuse_answer(self, tokens: int) -> None:
        pass


class Broken(Abacus):
    model_class = Model
