"""One transformer block of ChatGLM-6B (docs/specs/models.md, "ChatGLM-6B block").

Residuals start from the *normalised* input, scaled by alpha = sqrt(2 * 28) at any depth: the original's
blocks do not use the number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from medchat_chatglm.config_file import ALPHA
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.quantised import make_linear
from medchat_chatglm.rotary import turn


@dataclass(frozen=True, slots=True)
class Turns:
    """Cosine and sine of this pass, each [B, T, 1, 1, 2, head_dim / 4]; computed once for all layers."""

    cosine: Tensor
    sine: Tensor


class NormInOwnPrecision(nn.LayerNorm):
    """A layer norm that may be float32 inside a half-precision model, as in the 6B files."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [..., hidden]; the result has the dtype of `input`."""
        if input.dtype == self.weight.dtype:
            return super().forward(input)
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class ChatGLMAttention(nn.Module):
    """Self-attention; the rows of `query_key_value` are [q k v] head by head."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.layer = layer
        self.query_key_value = make_linear(config, config.hidden_size, 3 * config.hidden_size)
        self.dense = make_linear(config, config.hidden_size, config.hidden_size)

    def forward(
        self,
        states: Tensor,
        visible: Tensor | None,
        turns: Turns,
        cache: Cache | None,
        prefix: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Attend over `states` [B, T, hidden] and the cache; `visible` None means all of it.

        The original's layer-dependent scaling only kept float16 scores in range; torch computes
        scores and softmax in float32, so it has no counterpart here.
        """
        fused = self.query_key_value(states).unflatten(-1, (self.heads, 3, self.head_dim))
        # On another device only if layers are spread over devices; a dataclass keeps FSDP from casting the
        # table.
        cosine, sine = turns.cosine.to(states.device), turns.sine.to(states.device)
        turned = turn(fused[..., :2, :], cosine, sine)
        query, key = turned.transpose(1, 2).unbind(-2)
        value = fused[..., 2, :].transpose(1, 2)
        if prefix is not None:
            key, value = (
                torch.cat((p.to(s.dtype), s), dim=-2) for p, s in zip(prefix, (key, value), strict=True)
            )
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        projected: Tensor = self.dense(attended.transpose(1, 2).flatten(2))
        return projected


class ChatGLMFeedForward(nn.Module):
    """Two linear layers with the tanh approximation of gelu between them (not gated)."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = make_linear(config, config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = make_linear(config, config.inner_hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """Map [B, T, hidden] to [B, T, hidden]."""
        widened = functional.gelu(self.dense_h_to_4h(states), approximate="tanh")
        narrowed: Tensor = self.dense_4h_to_h(widened)
        return narrowed


class ChatGLMBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention and feed-forward, each added to alpha times its normalised input."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = NormInOwnPrecision(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer)
        self.post_attention_layernorm = NormInOwnPrecision(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMFeedForward(config)

    def forward(
        self,
        states: Tensor,
        visible: Tensor | None,
        turns: Turns,
        prefix: tuple[Tensor, Tensor] | None = None,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Map [B, T, hidden] to [B, T, hidden], adding keys and values to the cache if there is one."""
        normalised = self.input_layernorm(states)
        states = self.attention(normalised, visible, turns, past_key_values, prefix).add(
            normalised, alpha=ALPHA
        )
        normalised = self.post_attention_layernorm(states)
        transformed: Tensor = self.mlp(normalised)
        return transformed.add(normalised, alpha=ALPHA)
