"""Stop texts reach nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Delta, GenerationConfig

FAILS = "test_stop_texts_end_an_answer"


class Model(AbacusModel):
    def stream(self, segments: Prompt, config: GenerationConfig, cancel: threading.Event) -> Iterator[Delta]:
        yield from super().stream(segments, replace(config, stop=()), cancel)


class Broken(Abacus):
    model_class = Model
