"""An embedding whose gradient is added to what is there, row by row, instead of being made as a table first.

autograd's own makes a table as large as the vocabulary for the few rows that a batch uses, and then adds it
to the gradient: beside a real vocabulary most of a backward pass's memory traffic, and a peak of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def plain_embedding(model: Any) -> nn.Embedding | None:
    """Return the model's input embedding if it is one that `look_up` stands for, and is trained; else None."""
    found = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if type(found) is not nn.Embedding or not found.weight.requires_grad:
        return None
    special = found.max_norm is not None or found.scale_grad_by_freq or found.sparse
    return None if special else found


def look_up(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """Return the rows of `ids` [...] as [..., H]; their gradients go into `embedding.weight.grad` directly."""
    apply: Callable[..., Tensor] = _LookUp.apply
    return apply(ids, embedding.weight, embedding.padding_idx)


def gradient_of(weight: Tensor) -> Tensor:
    """Return the gradient of a weight, made of zeros where there is none yet."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


class _LookUp(torch.autograd.Function):
    """Rows of `weight` [V, H]; its `.grad` takes up their gradients, but for the rows of `padding`."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        """Return the rows."""
        ctx.ids, ctx.weight, ctx.padding = ids, weight, padding
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        """Add each row's gradient where it belongs."""
        into = gradient_of(ctx.weight)
        ids, rows = ctx.ids.flatten(), grad.flatten(0, -2)
        if ctx.padding is not None:
            learned = ids != ctx.padding
            ids, rows = ids[learned], rows[learned]
        # Each in its device's operation that adds in a fixed order: a resumed run must end the same.
        if rows.is_cuda:
            into.index_put_((ids,), rows, accumulate=True)
        else:
            into.index_add_(0, ids, rows)
        return None, None, None
