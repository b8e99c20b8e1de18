"""The process group of a run in a single process; `distributed` has that of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medchat.errors import MedchatError

Made = TypeVar("Made")


class ReportedElsewhere(MedchatError):
    """Another process of the run failed and reports the error."""

    def __init__(self) -> None:
        super().__init__("")


class ProcessGroup:
    """One process. A subclass for several overrides what differs; every call is made by all of them."""

    rank = 0
    count = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the messages."""
        return self.rank == 0

    def prepare(self, model: nn.Module) -> None:
        """Shard a loaded model in place, before an optimizer is made over its parameters."""

    def wrap_accelerator(self, accelerator: Any) -> None:
        """Adapt the Trainer's accelerator to what `prepare` did already."""

    def unshard(self, model: nn.Module) -> None:
        """Unshard the model in place, in the main process."""

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the full trained parameters by name; needed in the main process only.

        Shapes as in the model of one process, dtype as trained.
        """
        return {name: tensor.detach() for name, tensor in trained_parameters(model).items()}

    @torch.no_grad()
    def load_weight(self, model: nn.Module, name: str, tensor: Tensor) -> None:
        """Copy a full tensor into the parameter of that name. Its shape and dtype are the parameter's."""
        trained_parameters(model)[name].copy_(tensor)

    def optimizer_state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Return the full optimizer state as a tree; needed in the main process only."""
        return optimizer.state_dict()

    def load_optimizer_state(self, model: nn.Module, optimizer: Optimizer, tree: Mapping[str, Any]) -> None:
        """Load what `optimizer_state` returned."""
        optimizer.load_state_dict(dict(tree))

    def all_gather(self, value: Any) -> list[Any]:
        """Return each process's value, by rank. Values are trees (see `save_pytree`)."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Return whether the value is true in any process. Called after every step, so it must be fast."""
        return flag

    def barrier(self) -> None:
        """Wait until every process has arrived here."""

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what `make` returned in the main process; the others do not call it."""
        return make()

    @contextmanager
    def single_reporter(self) -> Iterator[None]:
        """Within this block the failure of any process is raised in only one of them."""
        yield


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients, each once, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
