"""An empty prompt is a list index out of range."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel, Prompt

FAILS = "test_an_empty_prompt_is_answered_or_refused"


class Model(AbacusModel):
    def prompt_ids(self, segments: Prompt) -> list[int]:
        ids = super().prompt_ids(segments)
        return ids if len(ids) > 1 else ids[:1] + ids[1:][:0] + [ids[1]]


class Broken(Abacus):
    model_class = Model
