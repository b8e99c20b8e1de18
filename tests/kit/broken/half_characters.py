"""The bytes of a character that was cut off are shown as U+FFFD."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Delta, Finish, GenerationConfig

FAILS = "test_every_cut_leaves_whole_characters"


class Model(AbacusModel):
    def stream(self, segments: Prompt, config: GenerationConfig, cancel: threading.Event) -> Iterator[Delta]:
        text = ""
        for delta in super().stream(segments, config, cancel):
            text += delta.text
            cut = delta.finish is Finish.LENGTH and len(text.encode()) < delta.completion_tokens
            yield replace(delta, text=delta.text + "\ufffd") if cut else delta


class Broken(Abacus):
    model_class = Model
