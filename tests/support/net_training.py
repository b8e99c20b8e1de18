"""A short fine-tuning run of a net of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medchat.api import Example, SFTData, SFTOptions


def data() -> SFTData:
    """Return two examples of one letter each."""
    return SFTData([Example("a", "bcd"), Example("e", "fgh")])


def sft(base: Path, output: Path, **changes: Any) -> SFTOptions:
    """Return options for two steps of LoRA, with `changes`."""
    plain = SFTOptions(
        model=base, output=output, method="lora", device="cpu", precision="float32", val_size=0
    )
    known = {"learning_rate": 0.03, "num_epochs": 2, "batch_size": 2, "micro_batch_size": 2, "save_steps": -1}
    return replace(plain, **{**known, "samples": 1, "max_length": 32, **changes})
