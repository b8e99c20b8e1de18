"""Nobody looks at `cancel`."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Delta, GenerationConfig

FAILS = "test_a_cancel_ends_the_answer"


class Model(AbacusModel):
    def stream(self, segments: Prompt, config: GenerationConfig, cancel: threading.Event) -> Iterator[Delta]:
        yield from super().stream(segments, config, threading.Event())


class Broken(Abacus):
    model_class = Model
