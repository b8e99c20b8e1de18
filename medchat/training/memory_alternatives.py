"""Other settings of a run that take less memory: those that an estimate lists, and the nearest that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import product
from typing import Any

from medchat.api import SFTOptions
from medchat.api.option import as_typed
from medchat.training.activation_memory import ModelDims

#: In order of decreasing memory.
_METHODS = ("full", "lora", "qlora")

Changes = Mapping[str, Any]


def listed_changes(options: SFTOptions, shape: ModelDims, processes: int) -> Iterator[Changes]:
    """Yield the alternatives that an estimate lists: every optimizer, and the methods that take less."""
    if options.method == "full" and processes > 1:
        # Neither is available with sharding: see `check_optimizer`.
        yield from ({"optimizer": "adamw", "precision": precision} for precision in ("mixed", "bfloat16"))
    elif options.method == "full":
        for optimizer, precision in (
            ("adamw", "mixed"),
            ("adamw", "bfloat16"),
            ("adamw8bit", "bfloat16"),
            ("adafactor", "bfloat16"),
        ):
            changes = {"optimizer": optimizer, "precision": precision, "fused_backward": False}
            yield changes
            yield changes | _fused(options, options.micro_batch_size)
    for method in dict.fromkeys((options.method, "lora", "qlora")):
        if method not in shape.methods:
            continue
        for checkpointing in _checkpointing(shape, method):
            yield {"method": method, "gradient_checkpointing": checkpointing} | (
                {"fused_backward": False} if method != "full" else {}
            )


def _fused(options: SFTOptions, rows: int) -> dict[str, Any]:
    """The settings that `fused_backward` requires."""
    return {"fused_backward": True, "batch_size": min(rows, options.batch_size), "max_grad_norm": 0.0}


def nearest_changes(options: SFTOptions, shape: ModelDims, processes: int) -> list[dict[str, Any]]:
    """Return changes of options in order of preference: first those that do not change the result."""
    return sorted(_changes(options, shape, processes), key=lambda one: _cost(options, one))


def _changes(options: SFTOptions, shape: ModelDims, processes: int) -> Iterator[dict[str, Any]]:
    rows = min(options.micro_batch_size, options.batch_size)
    sizes = [rows >> shift for shift in range(rows.bit_length()) if options.batch_size % (rows >> shift) == 0]
    for method in (
        _METHODS[_METHODS.index(options.method) :] if options.method in _METHODS else (options.method,)
    ):
        if method not in shape.methods:
            continue
        full = method == "full"
        smaller = ("adamw8bit", "adafactor") if find_spec("bitsandbytes") else ("adafactor",)
        for optimizer, precision, fused, size, checkpointing in product(
            dict.fromkeys((options.optimizer, *(smaller if full and processes == 1 else ()))),
            dict.fromkeys((options.precision, "bfloat16")),
            (False, True) if full and processes == 1 else (False,),
            sizes,
            _checkpointing(shape, method),
        ):
            wanted = {
                "method": method,
                "optimizer": optimizer,
                "precision": precision,
                "micro_batch_size": size,
                "gradient_checkpointing": checkpointing or options.gradient_checkpointing,
                "fused_backward": fused,
            }
            yield _different(options, wanted | (_fused(options, size) if fused else {}))


def _checkpointing(shape: ModelDims, method: str) -> tuple[bool, ...]:
    return (False, True) if shape.checkpoints and method != "ptuning" else (False,)


def _different(options: SFTOptions, wanted: Changes) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if getattr(options, name) != value}


def _cost(options: SFTOptions, changes: Changes) -> tuple[int, int]:
    """Another method gives another result, so it comes last; then by the number of changes."""
    return _METHODS.index(changes["method"]) if "method" in changes else 0, len(changes)


def flags_of(changes: Changes) -> str:
    """Return the setting as flags: its changes without those that `fused_backward` implies."""
    own = ("batch_size", "max_grad_norm")
    return as_typed(
        {name: value for name, value in changes.items() if value is not False and name not in own}
    )
