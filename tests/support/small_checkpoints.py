"""A small model and its checkpoint in every layout, to be loaded and damaged."""

from __future__ import annotations

from pathlib import Path

import torch
from refusals import refused
from torch import Tensor, nn

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.errors import MedchatError
from medchat.inference.load_weights import Placement, assign

CPU = torch.device("cpu")


class Small(nn.Module):
    """A model with each type of tensor: matrix, vector, scalar, buffer, tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("count", torch.arange(3, dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


TIED = {"head.weight": "embed.weight"}


def small_weights(seed: int = 0, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(7, 4, generator=drawn).to(dtype),
        "norm.weight": torch.randn(4, generator=drawn),
        "norm.bias": torch.randn(4, generator=drawn),
        "scale": torch.randn((), generator=drawn),
        "count": torch.tensor([4, 5, 6]),
    }


def load_small(folder: Path, dtype: torch.dtype = torch.float32, **placement: object) -> Small:
    checkpoint = open_checkpoint(folder)
    with torch.device("meta"):
        model = Small()
    # What a plugin does with its own non-persistent buffers.
    model.scratch = torch.zeros(2)
    options = {"tied": TIED} | placement
    assign(model, checkpoint, read_headers(checkpoint), Placement(dtype, CPU, **options))  # type: ignore[arg-type]
    return model


def load_refused(folder: Path) -> MedchatError:
    """Load `folder`, which must be refused, naming the place; return the English error."""
    error = refused(lambda: load_small(folder))
    assert error.where and len(error.what) + len(error.where) < 400 and len(error.remedy) < 400
    return error
