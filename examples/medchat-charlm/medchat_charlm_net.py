"""The net: an embedding, a recurrent layer, a head. Any module will do that sees nothing to the right."""

import torch
from torch import nn


class CharNet(nn.Module):
    def __init__(self, characters: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.memory(self.embedding(ids))[0])
        return logits
