"""Small models that an optimizer trains for a few steps, and the difference of two of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from medchat.api import SFTOptions

CPU = torch.device("cpu")
OPTIONS = SFTOptions(
    model=Path("unused"),
    output=Path("unused"),
    learning_rate=2e-3,
    weight_decay=0.1,
    batch_size=4,
    micro_batch_size=4,
    seed=3,
)
FUSED = replace(OPTIONS, fused_backward=True, max_grad_norm=0.0)


def small_llama(dtype: torch.dtype = torch.float32, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        **settings,
    )
    return LlamaForCausalLM(config).to(dtype)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    """Train on generated batches; the same seed gives the same batches."""
    for number in numbers:
        ids = torch.randint(0, 96, (4, 9), generator=torch.Generator().manual_seed(number))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        model.zero_grad()


def apart(left: nn.Module, right: nn.Module, first: Any, second: Any, count: int) -> float:
    """Step both with the same generated gradients; return the largest difference of their weights."""
    noise = torch.Generator().manual_seed(7)
    for _ in range(count):
        for one, other in zip(left.parameters(), right.parameters(), strict=True):
            one.grad = 0.1 * torch.randn(one.shape, generator=noise)
            other.grad = one.grad.clone()
        first.step()
        second.step()
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)
