"""What a ChatGLM of torch consists of, for the native engine."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from medchat.inference.cpu_engine.decoder_weights import Floats, Role
from medchat.inference.device import dtype_of
from medchat.inference.fused_decoder import DecoderParts, LayerParts, all_native, has_no_hooks
from medchat.inference.native_sequence import SequenceDecoder
from medchat_chatglm.blocks import ChatGLMBlock
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.native import ChatGLMSequence, chatglm_native_shape, chatglm_turns, turns_are_half


def chatglm_parts(model: ChatGLMForConditionalGeneration) -> DecoderParts | None:
    """Return the parts of `model`; None if a hook, a dense linear or an adapter that is no LoRA is among them."""
    body, config = model.transformer, model.config
    layers = [_layer(layer) for layer in body.layers if type(layer) is ChatGLMBlock]
    whole = len(layers) == config.num_layers and all(all_native(layer.linears) for layer in layers)
    if not whole or not has_no_hooks(model):
        return None
    dtype = dtype_of(model)
    half = turns_are_half(config.rotary_precision, str(dtype).removeprefix("torch."))
    return DecoderParts(
        chatglm_native_shape(config, precise=dtype == torch.float32),
        layers,
        body.final_layernorm,
        body.word_embeddings,
        model.lm_head,
        turns=partial(chatglm_turns, config.head_dim // 2, half),
    )


def chatglm_sequence(model: ChatGLMForConditionalGeneration, decoder: SequenceDecoder) -> ChatGLMSequence:
    """Return an empty sequence behind the prefix that `model` has."""
    return ChatGLMSequence(model.config, _prefix(model), decoder)


@torch.inference_mode()
def _prefix(model: ChatGLMForConditionalGeneration) -> tuple[Floats, Floats] | None:
    encoder = model.transformer.prefix_encoder
    if encoder is None:
        return None
    # [layers, heads, n, d] -> [n, layers, heads, d]
    keys, values = (_by_token(torch.cat(part)) for part in zip(*encoder(1, torch.float32), strict=True))
    return keys, values


def _by_token(layers: Tensor) -> Floats:
    rows: Floats = layers.permute(2, 0, 1, 3).contiguous().numpy()
    return rows


def _layer(layer: ChatGLMBlock) -> LayerParts:
    linears = {
        Role.QUERY: layer.attention.query_key_value,
        Role.ATTENTION_OUTPUT: layer.attention.dense,
        Role.UP: layer.mlp.dense_h_to_4h,
        Role.DOWN: layer.mlp.dense_4h_to_h,
    }
    return LayerParts(layer.input_layernorm, layer.post_attention_layernorm, linears)
