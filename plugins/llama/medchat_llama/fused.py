"""What a LLaMA of transformers consists of, for the native engine."""

from __future__ import annotations

from functools import partial

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from medchat.inference.cpu_engine.decoder_weights import Role
from medchat.inference.fused_decoder import DecoderParts, LayerParts, all_native, has_no_hooks
from medchat_llama.folder import LlamaShape
from medchat_llama.native import llama_native_shape, llama_turns


def llama_parts(model: LlamaForCausalLM) -> DecoderParts | None:
    """Return the parts of `model`; None if a hook, a dense linear or an adapter that is no LoRA is among them."""
    layers = [_layer(layer) for layer in model.model.layers if type(layer) is LlamaDecoderLayer]
    whole = len(layers) == model.config.num_hidden_layers and all(
        all_native(layer.linears) for layer in layers
    )
    if not whole or type(model.model.norm) is not LlamaRMSNorm or not has_no_hooks(model):
        return None
    shape = _stated(model.config)
    return DecoderParts(
        llama_native_shape(shape, precise=model.dtype == torch.float32),
        layers,
        model.model.norm,
        model.get_input_embeddings(),
        model.get_output_embeddings(),
        turns=partial(llama_turns, shape.hidden_size // shape.heads, shape.rope_theta),
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


def _stated(config: LlamaConfig) -> LlamaShape:
    """Return what `config` says as our own reading of a config.json has it."""
    return LlamaShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        inner_size=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        context_length=config.max_position_embeddings,
        norm_epsilon=config.rms_norm_eps,
        rope_theta=config.rope_parameters["rope_theta"],
        tied=config.tie_word_embeddings,
    )
