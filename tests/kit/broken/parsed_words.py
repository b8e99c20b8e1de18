"""The words of a user are searched for special tokens."""

from __future__ import annotations

import re

from abacus_backbone import SPECIAL, Abacus, AbacusModel, Prompt

from medchat.api import Control, Segment, Text

FAILS = "test_no_words_become_a_control_token"


class Model(AbacusModel):
    def prompt_ids(self, segments: Prompt) -> list[int]:
        parsed: list[Segment] = []
        for one in segments:
            if isinstance(one, Control):
                parsed.append(one)
                continue
            pieces = re.split("(" + "|".join(SPECIAL) + ")", one.text)
            parsed += [Control(piece) if piece in SPECIAL else Text(piece) for piece in pieces]
        return super().prompt_ids(parsed)


class Broken(Abacus):
    model_class = Model
