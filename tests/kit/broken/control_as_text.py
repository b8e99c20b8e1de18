"""A control token becomes the letters of its name."""

from __future__ import annotations

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Control, Text

FAILS = "test_special_tokens_are_those_of_the_vocabulary"


class Model(AbacusModel):
    def prompt_ids(self, segments: Prompt) -> list[int]:
        return super().prompt_ids([Text("</s>") if one == Control("</s>") else one for one in segments])


class Broken(Abacus):
    model_class = Model
