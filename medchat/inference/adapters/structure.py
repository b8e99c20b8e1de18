"""What a model is made of, remembered so that adapters can be taken off again, whatever kind they are.

    bare = Structure(model)
    attach_adapters(model, adapters, device, dtype)
    bare.restore()            # the very modules, parameters and hooks of before; no value was copied

An adapter that changes values in place, as a merged one does, cannot be taken off so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Structure:
    """The modules of `model` at this moment, with what hangs on each: children, parameters, buffers, hooks.

    Holds references, no values: it costs no memory worth counting, and keeps alive what it names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parts = [(module, _copied(module.__dict__)) for module in model.modules()]

    def restore(self) -> None:
        """Make the model again what it was. Anything that was attached since is let go."""
        for module, attributes in self._parts:
            module.__dict__.clear()
            module.__dict__.update(_copied(attributes))


@contextmanager
def kept_on_failure(model: nn.Module) -> Iterator[None]:
    """Put the structure of `model` back if what is done inside raises anything at all, Ctrl-C included."""
    before = Structure(model)
    try:
        yield
    except BaseException:
        before.restore()
        raise


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    # Tables of modules, parameters and hooks are changed in place; what they hold is replaced, not changed.
    return {
        name: copy.copy(value) if isinstance(value, dict | set | list) else value
        for name, value in attributes.items()
    }
