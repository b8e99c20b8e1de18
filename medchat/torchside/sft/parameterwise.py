"""An optimizer that updates one parameter at a time, in its step or already during the backward pass.

In the backward pass a gradient is used and freed as soon as it is complete, so that all of them never
exist together. Knows nothing of how a parameter is updated: see `update_rules`.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from medchat.torchside.sft.rounding import noise_for
from medchat.torchside.sft.update_rules import UpdateRule


class ParameterwiseOptimizer(Optimizer):
    """Applies `rule` to each parameter with a gradient.

    `groups` are torch's parameter groups, each with `lr`, `betas`, `eps` and `weight_decay`. With
    `in_backward` the update happens as soon as a gradient is complete; the gradient is gone then, and
    `step` finds nothing left to do. Rounding noise comes from `seed`, the parameter's number and its
    step, so the state saved and loaded is all there is.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], rule: UpdateRule, *, seed: int, in_backward: bool
    ) -> None:
        super().__init__(groups, {})
        self._rule = rule
        self._seed = seed
        self.in_backward = in_backward
        if in_backward:
            for number, group, parameter in self._parameters():
                parameter.register_post_accumulate_grad_hook(_hook(self, number, group))  # type: ignore[no-untyped-call]

    def _parameters(self) -> Iterable[tuple[int, int, Tensor]]:
        number = 0
        for index, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                yield number, index, parameter
                number += 1

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; the gradients stay until `zero_grad`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group, parameter in self._parameters():
            self._update(number, group, parameter)
        return loss

    @torch.no_grad()
    def _update(self, number: int, group: int, parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        state = self.state[parameter]
        taken = int(state["step"]) if state else 0
        noise = noise_for(parameter.device, self._seed, number, taken)
        self._rule.update(parameter, parameter.grad, state, self.param_groups[group], noise)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state as `state_dict` gave it, every tensor in the dtype it has.

        torch's own would cast the state to the dtype of the weights. Raises ValueError if the state
        belongs to other parameter groups.
        """
        saved = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != [len(group["params"]) for group in saved]:
            raise ValueError("the optimizer's saved state belongs to other parameter groups")
        parameters = [parameter for _, _, parameter in self._parameters()]
        names = [name for group in saved for name in group["params"]]
        by_name = dict(zip(names, parameters, strict=True))
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for name, values in state_dict["state"].items():
            parameter = by_name[name]
            state[parameter] = {
                key: torch.as_tensor(value, device="cpu" if key == "step" else parameter.device).clone()
                for key, value in values.items()
            }
        groups = [{**new, "params": own["params"]} for own, new in zip(self.param_groups, saved, strict=True)]
        self.__setstate__({"state": state, "param_groups": groups})


def _hook(optimizer: ParameterwiseOptimizer, number: int, group: int) -> Callable[[Tensor], None]:
    # The model must not keep the optimizer and all its state alive after training.
    owner = weakref.ref(optimizer)

    def update_and_free(parameter: Tensor) -> None:
        alive = owner()
        if alive is not None:
            alive._update(number, group, parameter)
            parameter.grad = None

    return update_and_free
