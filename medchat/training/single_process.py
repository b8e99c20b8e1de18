"""What a run needs to know of the processes it consists of. Here there is one; `distributed` has several."""

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
    """Another process of the run failed, and says why: there is nothing to add."""

    def __init__(self) -> None:
        super().__init__("")


class ProcessGroup:
    """One process. A subclass for several overrides what differs; every call is made by all of them."""

    rank = 0
    count = 1

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and is the only one to be heard."""
        return self.rank == 0

    def prepare(self, model: nn.Module) -> None:
        """Share out a loaded model in place, before an optimizer is made over its parameters."""

    def wrap_accelerator(self, accelerator: Any) -> None:
        """Tell the Trainer's accelerator what `prepare` did already."""

    def unshard(self, model: nn.Module) -> None:
        """Make a model that was shared out whole again, in place, in the main process."""

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the trained parameters whole, by name; only the main process needs to have them.

        Shapes as in the model of one process, dtype as trained.
        """
        return {name: tensor.detach() for name, tensor in trained_parameters(model).items()}

    @torch.no_grad()
    def load_weight(self, model: nn.Module, name: str, tensor: Tensor) -> None:
        """Put a whole tensor where `weights` found it. Its shape and dtype are the parameter's."""
        trained_parameters(model)[name].copy_(tensor)

    def optimizer_state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, whole, as a tree; only the main process needs to have it."""
        return optimizer.state_dict()

    def load_optimizer_state(self, model: nn.Module, optimizer: Optimizer, tree: Mapping[str, Any]) -> None:
        """Take over what `optimizer_state` gave."""
        optimizer.load_state_dict(dict(tree))

    def all_gather(self, value: Any) -> list[Any]:
        """Return the value that each process has, by rank. Values are trees (see `tensor_trees`)."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Return whether it is so in any process. Asked after every step: has to be quick."""
        return flag

    def barrier(self) -> None:
        """Continue when every process is here."""

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what the main process made; the others do not call `make`."""
        return make()

    @contextmanager
    def single_reporter(self) -> Iterator[None]:
        """Within this block a failure of any process is raised as itself in one of them alone."""
        yield


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients, each once, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
