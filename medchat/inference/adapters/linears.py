"""Which modules of a model are linear maps that an adapter can be beside: torch's, and GPT-2's of transformers."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D


def linear_sizes(module: nn.Module | None) -> tuple[int, int] | None:
    """Return (outputs, inputs) of a linear map, None for any other module.

    Conv1D is a linear whose weights are stored as [inputs, outputs]; peft attaches to it by itself. The projection of
    torch's MultiheadAttention is none: its weight is used, and it is never called.
    """
    if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    return None
