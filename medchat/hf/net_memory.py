"""What an estimate of memory must know of a net of one's own: counted and measured, as nothing states its layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from medchat.api import SFTOptions
from medchat.errors import UsageError
from medchat.training.activation_memory import ModelDims
from medchat.training.family import Family
from medchat.training.measured_step import HeldBytes, StepSize, loops_over_positions, measured_step
from medchat.training.methods import FullMethod, LoraMethod
from medchat.training.optimizers import Precision


def net_dims(
    family: Family, options: SFTOptions, make: Callable[[], nn.Module], rows: int, context_length: int
) -> ModelDims | None:
    """Return the dimensions of the net that `make` returns, None for one that needs values to be run.

    `rows` are those of its embedding. Raises UsageError if `options` ask for LoRA and no layer can have it.
    """

    def build(method: str) -> nn.Module:
        net = make()
        (FullMethod() if method == "full" else LoraMethod()).make_trainable(
            net, family, replace(options, adapters=())
        )
        return net

    @cache
    def measured(method: str, precision: Precision, size: StepSize) -> HeldBytes:
        return measured_step(lambda: build(method), precision, size.cut(context_length), loops=loops)

    with torch.device("meta"):
        net = make()
        trainable = {}
        try:
            learner = build("lora")
            trainable["lora"] = sum(part.numel() for part in learner.parameters() if part.requires_grad)
        except UsageError:
            if options.method == "lora":
                raise
    try:
        loops = loops_over_positions(lambda: build(options.method))
    except Exception:  # whatever a net does that needs values, such as a choice between its layers
        return None
    matrices = [weight.shape for weight in net.parameters() if weight.dim() == 2]
    # The side of a square matrix that has as many rows and columns for its elements as those of the net.
    side = 2 * sum(map(torch.Size.numel, matrices)) // max(1, sum(map(sum, matrices)))
    return ModelDims(
        layers=1,
        hidden=max(1, side),
        inner=0,
        heads=1,
        vocabulary=rows,
        block="plain",
        tied=False,
        parameters=sum(weight.numel() for weight in net.parameters()),
        packed=0,
        trainable=trainable,
        measured=measured,
    )
