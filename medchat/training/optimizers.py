"""Chooses a run's optimizer and precision, and checks that this machine supports them."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.trainer_pt_utils import get_parameter_names

from medchat import launcher
from medchat.api import SFTOptions
from medchat.api.sft_options import OPTIMIZERS, PRECISIONS
from medchat.errors import UsageError
from medchat.inference.device import pick_dtype
from medchat.language import say
from medchat.training.update_rules import SMALLEST_8BIT, Adafactor, Adam8bit, AdamW, UpdateRule, noise_for

# An optimizer that updates one parameter at a time, in its step or during the backward pass.
#
# During the backward pass a gradient is applied and freed as soon as it is complete, so that they never all
# exist at once. How a parameter is updated: see `update_rules`.


class PerParameterOptimizer(Optimizer):
    """Applies `rule` to each parameter with a gradient.

    `groups` are torch's parameter groups, each with `lr`, `betas`, `eps` and `weight_decay`. With
    `in_backward` the update happens as soon as a gradient is complete; the gradient is then freed, and `step`
    does nothing. Rounding noise depends on `seed`, the parameter's number and its step, so the optimizer's
    state is complete without a generator's.
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
        """Load a state from `state_dict`, keeping the dtype of every tensor.

        torch's own method would cast the state to the dtype of the weights. Raises ValueError if the state
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


def _hook(optimizer: PerParameterOptimizer, number: int, group: int) -> Callable[[Tensor], None]:
    # The hooks must not keep the optimizer and its state alive after training.
    owner = weakref.ref(optimizer)

    def update_and_free(parameter: Tensor) -> None:
        alive = owner()
        if alive is not None:
            alive._update(number, group, parameter)
            parameter.grad = None

    return update_and_free


#: Parameters without weight decay, as in transformers' Trainer (`get_decay_parameter_names`).
_NOT_DECAYED = (r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtypes of a run. `autocast`: computes in bfloat16 with float32 weights."""

    name: str
    #: Of the trained parameters.
    weights: torch.dtype
    #: Of the frozen parameters, if a method has any.
    base: torch.dtype
    autocast: bool = False

    @property
    def compute(self) -> torch.dtype:
        """Return the dtype of activations."""
        return torch.bfloat16 if self.autocast else self.weights


def precision_of(options: SFTOptions, device: torch.device) -> Precision:
    """Return the dtypes for `options.precision` on `device`; `auto` is `mixed` if bfloat16 is native."""
    name = options.precision
    if name == "auto":
        name = "mixed" if pick_dtype("auto", device) is torch.bfloat16 else "float32"
    if name == "mixed":
        return Precision(name, torch.float32, torch.bfloat16, autocast=True)
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    return Precision(name, dtype, dtype)


def build_optimizer(model: nn.Module, options: SFTOptions) -> Optimizer:
    """Return the optimizer over the parameters of `model` that require gradients.

    Norms and biases are not decayed. bfloat16 parameters are updated with stochastic rounding. With
    `options.fused_backward` updates happen during the backward pass: see `PerParameterOptimizer`.
    """
    groups = _groups(model, options)
    rounded = any(parameter.dtype is torch.bfloat16 for group in groups for parameter in group["params"])
    if options.optimizer == "adamw" and not rounded and not options.fused_backward:
        # Fused: no temporaries as large as the model.
        return torch.optim.AdamW(groups, fused=True)
    rules: dict[str, type[UpdateRule]] = {"adamw": AdamW, "adamw8bit": Adam8bit, "adafactor": Adafactor}
    rule = rules[options.optimizer]()
    return PerParameterOptimizer(groups, rule, seed=options.seed, in_backward=options.fused_backward)


def _groups(model: nn.Module, options: SFTOptions) -> list[dict[str, Any]]:
    decayed = set(get_parameter_names(model, [nn.LayerNorm], _NOT_DECAYED))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    common = {
        "lr": options.learning_rate,
        "betas": (options.adam_beta1, options.adam_beta2),
        "eps": options.adam_epsilon,
    }
    split = [
        {"params": [parameter for name, parameter in trained if name in decayed], **common},
        {"params": [parameter for name, parameter in trained if name not in decayed], **common},
    ]
    split[0]["weight_decay"], split[1]["weight_decay"] = options.weight_decay, 0.0
    return [group for group in split if group["params"]]


def check_optimizer(options: SFTOptions, device: torch.device) -> None:
    """Raise UsageError, before anything is loaded, for an optimizer or precision that cannot run here."""
    for flag, value, choices in (
        ("--optimizer", options.optimizer, OPTIMIZERS),
        ("--precision", options.precision, PRECISIONS),
    ):
        if value not in choices:
            raise UsageError(
                say(f"{flag} 的值“{value}”无效", f"{flag} {value!r} is not valid"),
                say(f"可选：{'、'.join(choices)}", f"choose one of {', '.join(choices)}"),
            )
    if options.fused_backward:
        _check_fused(options)
    if options.optimizer == "adamw8bit":
        _check_8bit(device)
    if _processes() > 1 and options.method == "full" and options.optimizer != "adamw":
        raise UsageError(
            say(
                f"多进程全参数微调会切分参数，--optimizer {options.optimizer} 做不到",
                "full fine-tuning in several processes shards the parameters, "
                f"which --optimizer {options.optimizer} cannot do",
            ),
            say("请改用 --optimizer adamw", "use --optimizer adamw"),
        )


def _check_fused(options: SFTOptions) -> None:
    """A fused update applies each gradient at once: no accumulation, clipping or all-reduce is possible."""
    if options.batch_size > options.micro_batch_size:
        raise UsageError(
            say(
                "--fused-backward 不能与梯度累积同用："
                f"--batch-size {options.batch_size} 大于 --micro-batch-size {options.micro_batch_size}",
                "--fused-backward cannot accumulate gradients: "
                f"--batch-size {options.batch_size} is above --micro-batch-size {options.micro_batch_size}",
            ),
            say("请让两者相等，或去掉 --fused-backward", "make the two equal, or drop --fused-backward"),
        )
    if options.max_grad_norm:
        raise UsageError(
            say(
                f"--fused-backward 不能与全局梯度裁剪同用（--max-grad-norm {options.max_grad_norm:g}）",
                f"--fused-backward cannot clip by the global norm (--max-grad-norm {options.max_grad_norm:g})",
            ),
            say("请加上 --max-grad-norm 0，或去掉 --fused-backward",
                "add --max-grad-norm 0, or drop --fused-backward"),
        )  # fmt: skip
    if _processes() > 1:
        raise UsageError(
            say(
                "--fused-backward 只能单进程使用：多进程须先交换梯度",
                "--fused-backward works in one process only: with several, gradients are exchanged first",
            ),
            say("请去掉 --fused-backward", "drop --fused-backward"),
        )


def _processes() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return launcher.world_size()


def _check_8bit(device: torch.device) -> None:
    way_out = say(
        "请改用 --optimizer adafactor（更省内存）或 adamw",
        "use --optimizer adafactor (which takes less memory) or adamw",
    )
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            say("--optimizer adamw8bit 需要 bitsandbytes，尚未安装",
                "--optimizer adamw8bit needs bitsandbytes, which is not installed"),
            say("请运行 pip install bitsandbytes；或者，", "run pip install bitsandbytes; or ") + way_out,
        )  # fmt: skip
    reason = why_no_8bit(device)
    if reason:
        raise UsageError(
            say(
                f"这里的 bitsandbytes 在 {device} 上不能运行 8 位 Adam：{reason}",
                f"the bitsandbytes installed here has no 8-bit Adam for {device}: {reason}",
            ),
            way_out,
        )


@cache
def why_no_8bit(device: torch.device) -> str:
    """Take one step with the smallest tensor that is kept in 8 bits: builds differ in their kernels."""
    parameter = nn.Parameter(torch.zeros(SMALLEST_8BIT, device=device))
    group = {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    try:
        with torch.no_grad():
            noise = torch.Generator(device)
            Adam8bit().update(parameter, torch.ones_like(parameter), {}, group, noise)
    except Exception as error:  # the type depends on which kernel is missing
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    moved = bool((parameter < 0).all())
    return "" if moved else say("更新没有生效", "an update changed nothing")
