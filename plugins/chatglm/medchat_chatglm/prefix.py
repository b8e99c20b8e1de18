"""The P-tuning v2 prefix: learned keys and values before the text (docs/specs/models.md, "P-tuning prefix")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medchat_chatglm.configuration import ChatGLMConfig

#: Dropout on the prefix, in training only.
_DROPOUT = 0.1


def train_prefix_only(model: nn.Module) -> list[str]:
    """Freeze everything except the prefix encoder, which is float32; return the names of the trained parameters.

    The base may be half-precision or quantised: the prefix is cast to its activations.
    """
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("prefix_encoder." in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            names.append(name)
    return names


class PrefixEncoder(nn.Module):
    """Computes `pre_seq_len` keys and values for every layer, neither rotated nor counted in positions."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        assert config.pre_seq_len
        self.length: int = config.pre_seq_len
        self.layers = config.num_layers
        self.heads = config.num_attention_heads
        width = 2 * config.num_layers * config.hidden_size
        if config.prefix_projection:
            self.embedding = nn.Embedding(self.length, config.hidden_size)
            self.trans: nn.Module = nn.Sequential(
                nn.Linear(config.hidden_size, config.hidden_size),
                nn.Tanh(),
                nn.Linear(config.hidden_size, width),
            )
        else:
            self.embedding = nn.Embedding(self.length, width)
            self.trans = nn.Identity()
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, batch: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Return per layer keys and values, each [batch, heads, pre_seq_len, head_dim] in `dtype`."""
        rows = self.trans(self.embedding.weight).to(dtype)
        # [n, 2L, heads, d] -> [B, L, 2, heads, n, d]
        split = rows.view(self.length, self.layers, 2, self.heads, -1).permute(1, 2, 3, 0, 4)
        # Dropout comes after repeating, so that it differs for every row of the batch.
        repeated = self.dropout(split.expand(batch, *split.shape))
        return [(pair[:, 0], pair[:, 1]) for pair in repeated.unbind(1)]
