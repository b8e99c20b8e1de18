"""What a LLaMA of transformers consists of, for the native engine."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from medchat.inference.cpu_engine.decoder_shape import (
    FeedForward,
    NativeShape,
    NormKind,
    Positions,
    QueryLayout,
)
from medchat.inference.cpu_engine.decoder_weights import Role
from medchat.inference.fused_decoder import DecoderParts, LayerParts, all_native, has_no_hooks


def llama_parts(model: LlamaForCausalLM) -> DecoderParts | None:
    """Return the parts of `model`; None if a hook, a dense linear or an adapter that is no LoRA is among them."""
    layers = [_layer(layer) for layer in model.model.layers if type(layer) is LlamaDecoderLayer]
    whole = len(layers) == model.config.num_hidden_layers and all(
        all_native(layer.linears) for layer in layers
    )
    if not whole or type(model.model.norm) is not LlamaRMSNorm or not has_no_hooks(model):
        return None
    return DecoderParts(
        _shape(model),
        layers,
        model.model.norm,
        model.get_input_embeddings(),
        model.get_output_embeddings(),
        turns=partial(_turns, model.model.rotary_emb.inv_freq.float()),
    )


def _layer(layer: LlamaDecoderLayer) -> LayerParts:
    attention, feed_forward = layer.self_attn, layer.mlp
    linears = {
        Role.QUERY: attention.q_proj,
        Role.KEY: attention.k_proj,
        Role.VALUE: attention.v_proj,
        Role.ATTENTION_OUTPUT: attention.o_proj,
        Role.GATE: feed_forward.gate_proj,
        Role.UP: feed_forward.up_proj,
        Role.DOWN: feed_forward.down_proj,
    }
    return LayerParts(layer.input_layernorm, layer.post_attention_layernorm, linears)


def _turns(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    angles = positions.float()[:, None] * frequencies
    return angles.cos(), angles.sin()


def _shape(model: LlamaForCausalLM) -> NativeShape:
    config = model.config
    return NativeShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=config.hidden_size // config.num_attention_heads,
        inner_width=config.intermediate_size,
        norm=NormKind.ROOT_MEAN_SQUARE,
        positions=Positions.ROTARY,
        query_layout=QueryLayout.THREE_MATRICES,
        feed_forward=FeedForward.GATED_SILU,
        precise=model.dtype == torch.float32,
        norm_epsilon=config.rms_norm_eps,
    )
