"""Stopping a forward pass half-way. A long prompt takes seconds to read; the user need not wait for it.

Imports no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class GenerationCancelled(Exception):
    """The forward pass was stopped before its end. The cache it was filling is no longer whole."""


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a transformers model: the modules its class declares indivisible."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


@contextmanager
def interruptible(layers: Iterable[nn.Module], cancel: threading.Event) -> Iterator[None]:
    """Within this block a forward pass raises Interrupted before the next layer once `cancel` is set."""

    def check(_module: nn.Module, _inputs: Any) -> None:
        if cancel.is_set():
            raise GenerationCancelled

    handles = [layer.register_forward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
