"""What a Bloom of transformers consists of, for the native engine."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BloomForCausalLM
from transformers.models.bloom.modeling_bloom import BloomBlock, build_alibi_tensor

from medchat.inference.cpu_engine.decoder_shape import (
    FeedForward,
    NativeShape,
    NormKind,
    Positions,
    QueryLayout,
)
from medchat.inference.cpu_engine.decoder_weights import Role
from medchat.inference.fused_decoder import DecoderParts, LayerParts, all_native, has_no_hooks


def bloom_parts(model: BloomForCausalLM) -> DecoderParts | None:
    """Return the parts of `model`; None if a hook, a dense linear or an adapter that is no LoRA is among them."""
    body = model.transformer
    layers = [_layer(layer) for layer in body.h if type(layer) is BloomBlock]
    whole = len(layers) == model.config.n_layer and all(all_native(layer.linears) for layer in layers)
    if not whole or not has_no_hooks(model):
        return None
    heads = model.config.n_head
    return DecoderParts(
        _shape(model),
        layers,
        body.ln_f,
        partial(_embed, body.word_embeddings, body.word_embeddings_layernorm),
        model.get_output_embeddings(),
        # What the second place adds to a score.
        slopes=build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1],
    )


def _embed(embedding: nn.Module, norm: nn.LayerNorm, ids: Tensor) -> Tensor:
    rows = embedding(ids).float()
    return functional.layer_norm(
        rows, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps
    )


def _layer(layer: BloomBlock) -> LayerParts:
    linears = {
        Role.QUERY: layer.self_attention.query_key_value,
        Role.ATTENTION_OUTPUT: layer.self_attention.dense,
        Role.UP: layer.mlp.dense_h_to_4h,
        Role.DOWN: layer.mlp.dense_4h_to_h,
    }
    return LayerParts(layer.input_layernorm, layer.post_attention_layernorm, linears)


def _shape(model: BloomForCausalLM) -> NativeShape:
    config = model.config
    return NativeShape(
        layers=config.n_layer,
        width=config.hidden_size,
        heads=config.n_head,
        key_heads=config.n_head,
        head_width=config.hidden_size // config.n_head,
        inner_width=4 * config.hidden_size,
        norm=NormKind.LAYER_NORM,
        positions=Positions.LINEAR_BIAS,
        query_layout=QueryLayout.BY_HEAD,
        feed_forward=FeedForward.PLAIN_GELU,
        residual_from_norm=config.apply_residual_connection_post_layernorm,
        precise=model.dtype == torch.float32,
        norm_epsilon=config.layer_norm_epsilon,
    )
