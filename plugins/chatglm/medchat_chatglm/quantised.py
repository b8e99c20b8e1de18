"""Quantises the parts of a ChatGLM that are quantised in the published int8 and int4 files.

Layout: docs/specs/models.md, "Quantized weights".
The layers themselves are `medchat.inference.quantization`.
"""

from __future__ import annotations

import torch
from torch import nn

from medchat.inference import quantization
from medchat.inference.quantization import QuantizedEmbedding, QuantizedLinear
from medchat_chatglm.configuration import ChatGLMConfig

#: The linear layers of a block that the original quantises; norms, biases and embeddings are not.
QUANTISED_NAMES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def make_linear(config: ChatGLMConfig, inputs: int, outputs: int) -> nn.Module:
    """Return a block's linear layer as configured: dense, or to be filled with packed weights."""
    if config.quantization_bit:
        return QuantizedLinear(inputs, outputs, config.quantization_bit)
    return nn.Linear(inputs, outputs)


def make_embedding(config: ChatGLMConfig) -> nn.Module:
    """Return the embedding of the vocabulary, packed if the configuration says so."""
    if config.quantization_bit and config.quantization_embeddings:
        return QuantizedEmbedding(config.vocab_size, config.hidden_size, config.quantization_bit)
    return nn.Embedding(config.vocab_size, config.hidden_size)


def make_head(config: ChatGLMConfig) -> nn.Module:
    """Return the output head, packed if the embedding is."""
    if config.quantization_bit and config.quantization_embeddings:
        return QuantizedLinear(config.hidden_size, config.vocab_size, config.quantization_bit, bias=False)
    return nn.Linear(config.hidden_size, config.vocab_size, bias=False)


def quantize_blocks(model: nn.Module, bits: int) -> int:
    """Quantise the four linear layers of every block in place; return their number.

    The configuration then states it, as in the published files.
    """
    done = quantization.quantize_linears(model, bits, QUANTISED_NAMES)
    if done:
        model.config.quantization_bit = bits  # type: ignore[union-attr]
    return done


def dequantize_blocks(model: nn.Module, dtype: torch.dtype = torch.float32) -> int:
    """Dequantise the linear layers of every block in place; return their number."""
    done = quantization.dequantize_linears(model, QUANTISED_NAMES, dtype)
    if done:
        model.config.quantization_bit = 0  # type: ignore[union-attr]
    return done
