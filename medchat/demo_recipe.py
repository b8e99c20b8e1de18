"""How the demo's miniature is built and trained: the shape and the settings, found by measuring.

A small deep net learns these pairs by heart sooner than a wide one of the same cost: the residual of this
architecture is a constant 7.5 times the normalised state, so each layer can change little, and the
learning rate is far above that of real fine-tuning. Numbers of the search: docs/measurements.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType

from medchat.api import SFTOptions


@dataclass(frozen=True, slots=True)
class DemoRecipe:
    """A miniature's shape (what `Backbone.tiny` takes) and the settings of its fine-tuning."""

    shape: Mapping[str, int] = field(default_factory=dict)
    learning_rate: float = 8e-3
    epochs: float = 30.0
    batch_size: int = 16
    warmup_ratio: float = 0.05
    scheduler: str = "linear"
    max_length: int = 128
    logging_steps: int = 5
    seed: int = 2023

    def options(self, model: Path, output: Path) -> SFTOptions:
        """Return the options for training the miniature at `model` into `output`.

        On one CPU thread: at this size a second one saves nothing, and on a busy machine the two wait
        for each other many times longer than they compute.
        """
        return SFTOptions(
            model=model,
            output=output,
            method="full",
            learning_rate=self.learning_rate,
            num_epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size=self.batch_size,
            max_length=self.max_length,
            warmup_ratio=self.warmup_ratio,
            scheduler=self.scheduler,
            logging_steps=self.logging_steps,
            seed=self.seed,
            device="cpu",
            threads=1,
            precision="float32",
            save_steps=-1,
            val_size=0,
            samples=0,
        )

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits that change with any setting: part of the demo cache's key."""
        settings = {item.name: getattr(self, item.name) for item in fields(self)}
        text = json.dumps({**settings, "shape": dict(self.shape)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


#: By backbone. Two cores, 150 pairs: see docs/measurements.md.
DEMO_RECIPES: Mapping[str, DemoRecipe] = MappingProxyType(
    {
        "chatglm": DemoRecipe(
            shape=MappingProxyType(
                {
                    "hidden_size": 128,
                    "num_layers": 3,
                    "num_attention_heads": 4,
                    "inner_hidden_size": 512,
                    "vocabulary_size": 2000,
                }
            )
        )
    }
)
