"""The name of a control token that the vocabulary lacks is encoded as text."""

from __future__ import annotations

from abacus_backbone import SPECIAL, Abacus, AbacusModel, Prompt

from medchat.api import Control, Text

FAILS = "test_an_unknown_control_token_is_a_usage_error"


class Model(AbacusModel):
    def prompt_ids(self, segments: Prompt) -> list[int]:
        known = [
            Text(one.token) if isinstance(one, Control) and one.token not in SPECIAL else one
            for one in segments
        ]
        return super().prompt_ids(known)


class Broken(Abacus):
    model_class = Model
