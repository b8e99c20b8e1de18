"""Answers that are streamed together share what is kept of a prompt: each continues the one that was read last."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from abacus_backbone import Abacus, AbacusModel, Prompt

from medchat.api import Delta, GenerationConfig

FAILS = "test_a_batch_answers_as_each_prompt_alone"


class Model(AbacusModel):
    exact_in_batch = True

    def stream_in_batch(
        self, segments: Prompt, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        return self.stream(segments, config, cancel)


class Broken(Abacus):
    model_class = Model
