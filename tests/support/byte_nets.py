"""Nets of one's own for tests: a vocabulary of bytes, and a causal net of torch's own layers over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medchat.hf import NetBackbone, NetTokenizer

#: Its context, in ids.
LENGTH = 64


class Bytes(NetTokenizer):
    special_ids: Mapping[str, int] = {"<end>": 256}
    eos_token_id = 256
    size = 257

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token < 256).decode("utf-8", "replace")


class Attending(nn.Module):
    """A layer of torch's own, positions that are kept, a mask that is stored, a head tied to the embedding."""

    positions: Tensor | None = None

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(rows, width), nn.Linear(width, rows, bias=False)
        self.head.weight = self.embedding.weight
        self.block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        states, length = self.embedding(ids), ids.shape[1]
        if self.positions is None or len(self.positions) < length:
            steps = torch.arange(LENGTH, device=ids.device)[:, None] / 10
            self.positions = torch.sin(steps * torch.arange(1, states.shape[-1] + 1, device=ids.device))
        states = states + self.positions[:length].to(states.dtype)
        logits: Tensor = self.head(self.out(self.block(states, src_mask=self.mask[:length, :length])))
        return logits


class AttendingBackbone(NetBackbone):
    name = "attending"
    summary: Mapping[str, str] = {"zh": "测试", "en": "test"}

    def net(self, config: Mapping[str, Any]) -> nn.Module:
        return Attending(config["vocab_size"], config["width"])

    def tokenizer(self, folder: Path) -> Bytes:
        return Bytes()

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        sizes = {"vocab_size": 257, "width": 16, "max_position_embeddings": LENGTH, **shape}
        self.write_random(path, sizes, seed)
