"""`completion_tokens` counts what is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Delta, GenerationConfig

FAILS = "test_an_answer_keeps_to_the_interface"


class Model(AbacusModel):
    def stream(self, segments: Prompt, config: GenerationConfig, cancel: threading.Event) -> Iterator[Delta]:
        for delta in super().stream(segments, config, cancel):
            left = config.max_new_tokens - delta.completion_tokens
            yield delta if delta.finish else replace(delta, completion_tokens=left)


class Broken(Abacus):
    model_class = Model
