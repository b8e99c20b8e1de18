"""`describe` does not say where the model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abacus_backbone import Abacus, AbacusModel

FAILS = "test_describe_says_what_is_loaded"


class Model(AbacusModel):
    def describe(self) -> Mapping[str, Any]:
        return {key: value for key, value in super().describe().items() if key != "device"}


class Broken(Abacus):
    model_class = Model
