"""What one step of training holds in memory, found by running it on tensors that have shapes and no values.

    measured_step(build, precision, StepSize(rows=8, length=512, labels=900), loops=loops_over_positions(build))

For a net of which nothing is known but that it turns ids into logits. A storage counts from when an operator returned
it until nothing refers to it any more.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from medchat.training.fused_loss import summed_loss
from medchat.training.optimizers import Precision

#: Lengths from which a longer one is reckoned for a net that loops over positions: hundreds would take a minute.
_SHORT = (4, 8, 12)


@dataclass(frozen=True, slots=True)
class StepSize:
    """A batch of `rows` texts of `length` ids each, padding included, with `labels` positions that are learned."""

    rows: int
    length: int
    labels: int

    def cut(self, length: int) -> StepSize:
        """Return the same of texts that are no longer than `length`, with as many labels for each position."""
        kept, labels = min(length, self.length), -(-self.labels // self.length)
        return StepSize(self.rows, kept, min(self.rows, labels) * kept)


@dataclass(frozen=True, slots=True)
class HeldBytes:
    """Bytes that a step holds beside the weights, the net's buffers included.

    `activations` and `gradients` where all gradients are kept, at the moment when both together are most; `alone`:
    the most of activations where each gradient is freed once it is complete.
    """

    activations: int
    gradients: int
    alone: int


def loops_over_positions(build: Callable[[], nn.Module]) -> bool:
    """Say whether the net runs more operators on a longer text: a recurrent one. See `measured_step`."""
    whole = Precision("float32", torch.float32, torch.float32)
    first, second = (_run(build, whole, StepSize(1, length, length)) for length in _SHORT[:2])
    return first.operators != second.operators


def measured_step(
    build: Callable[[], nn.Module], precision: Precision, size: StepSize, *, loops: bool
) -> HeldBytes:
    """Return what a step of this size holds; if it `loops` over positions, reckoned from shorter ones.

    `build` returns the net, its trained parameters requiring gradients and no other. Raises whatever the net raises
    on tensors without values.
    """
    if not loops or size.length <= _SHORT[-1]:
        whole = _run(build, precision, size)
        return HeldBytes(whole.activations, whole.gradients, whole.alone)
    short = [_run(build, precision, size.cut(length)).early for length in _SHORT]
    reckoned = _further(short, size.length)
    return HeldBytes(reckoned, 0, reckoned)


def _further(held: Sequence[int], length: int) -> int:
    """Return what a length holds by the parabola through those of `_SHORT`: attention holds squares of it."""
    first, second, third = held
    steps = (length - _SHORT[0]) / (_SHORT[1] - _SHORT[0])
    slope, bend = second - first, third - 2 * second + first
    return round(first + slope * steps + max(0, bend) * steps * (steps - 1) / 2)


def _run(build: Callable[[], nn.Module], precision: Precision, size: StepSize) -> _LiveBytes:
    nowhere = torch.device("meta")
    with nowhere:
        made = build()
    # Autocast knows no meta device. Fake tensors pass for a CPU's, and take three times as long.
    with FakeTensorMode(allow_non_fake_inputs=True) if precision.autocast else nowhere:
        model = _in_dtypes(made, precision).train()
        live = _LiveBytes(model.parameters())
        live.count(model.buffers())
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(live.keep_gradient)  # type: ignore[no-untyped-call]
        with live:
            ids = torch.zeros(size.rows, size.length, dtype=torch.int64)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision.autocast):
                # Of as many positions as there are labels, wherever they are.
                logits = model(ids).flatten(0, 1)[torch.arange(size.labels)]
                loss = summed_loss(logits, torch.zeros(size.labels, dtype=torch.int64))
            loss.backward()  # type: ignore[no-untyped-call]
    return live


def _in_dtypes(model: nn.Module, precision: Precision) -> nn.Module:
    """Return a copy with tensors of the device that is the default now, in the dtypes of training."""
    copies: dict[int, Any] = {}
    for parameter in model.parameters():
        dtype = precision.weights if parameter.requires_grad else precision.base
        empty = torch.empty(parameter.shape, dtype=dtype)
        copies[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    kept = (
        value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)
    )
    for tensor in (*model.buffers(), *kept):
        dtype = precision.base if tensor.is_floating_point() else tensor.dtype
        copies[id(tensor)] = torch.empty(tensor.shape, dtype=dtype)
    return copy.deepcopy(model, copies)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operators return, `parameters` left out, and remembers the most there were."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: Any = WeakIdKeyDictionary()
        for parameter in parameters:
            self._known[parameter.untyped_storage()] = None
        self._now = self._complete = 0
        #: How many operators ran; the three numbers of `HeldBytes`; the most before the first gradient was complete.
        self.operators = self.activations = self.gradients = self.alone = self.early = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operators += 1
        made = func(*args, **(kwargs or {}))
        self.count(part for part in tree_leaves(made) if isinstance(part, Tensor))
        return made

    def count(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of these tensors from now on, each once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known[storage] = None
                self._now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage.nbytes())
        if self._now > self.activations + self.gradients:
            self.activations, self.gradients = self._now - self._complete, self._complete
        self.alone = max(self.alone, self._now - self._complete)
        if not self._complete:
            self.early = max(self.early, self._now)

    def keep_gradient(self, parameter: Tensor) -> None:
        """Note that the gradient of a parameter is complete."""
        if parameter.grad is not None:
            self._complete += parameter.grad.nbytes

    def _forget(self, size: int) -> None:
        self._now -= size
