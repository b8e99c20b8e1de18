"""What a ChatGLM consists of and how its sequences are counted, for the native engine.

Nothing is kept from prompt to prompt, as in `stepper`; how many tokens each one sees is what the masks of
`position_rules` say, which for every rule are those at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from medchat.inference.cpu_engine.decoder import Tokens
from medchat.inference.cpu_engine.decoder_shape import (
    FeedForward,
    NativeShape,
    NormKind,
    Positions,
    QueryLayout,
)
from medchat.inference.cpu_engine.decoder_weights import Floats, Role
from medchat.inference.device import dtype_of
from medchat.inference.fused_decoder import (
    DecoderParts,
    FusedDecoder,
    LayerParts,
    all_native,
    has_no_hooks,
)
from medchat_chatglm import position_rules
from medchat_chatglm.blocks import ALPHA, ChatGLMBlock
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.rotary import table_precision, turn_table


def chatglm_parts(model: ChatGLMForConditionalGeneration) -> DecoderParts | None:
    """Return the parts of `model`; None if a hook, a dense linear or an adapter that is no LoRA is among them."""
    body, config = model.transformer, model.config
    layers = [_layer(layer) for layer in body.layers if type(layer) is ChatGLMBlock]
    whole = len(layers) == config.num_layers and all(all_native(layer.linears) for layer in layers)
    if not whole or not has_no_hooks(model):
        return None
    precision = table_precision(config.rotary_precision, dtype_of(model))
    return DecoderParts(
        _shape(model),
        layers,
        body.final_layernorm,
        body.word_embeddings,
        model.lm_head,
        turns=partial(_turns, config.head_dim // 2, precision),
    )


class ChatGLMSequence:
    """A prompt that sees itself in both directions, behind the prefix that the model has, and its answer."""

    #: A bidirectional prompt cannot reuse the last one's cache.
    reused = 0

    def __init__(self, model: ChatGLMForConditionalGeneration, decoder: FusedDecoder) -> None:
        self._model = model
        self._decoder = decoder
        self._cache = decoder.native.new_cache()
        self._first = self._store_prefix()
        self._length = self._position = self._block = 0

    def prompt(self, ids: Sequence[int], *, prompt_tokens: int | None = None, wanted: int = 1) -> Tokens:
        """Return all tokens of a prompt; ids behind the first `prompt_tokens` are as if they had been generated.

        Raises DataError for a prompt without mask token and `<sop>`.
        """
        config, length = self._model.config, len(ids)
        marks = position_rules.find_landmarks(torch.tensor([list(ids)]), config.special_ids, config.rule)
        if prompt_tokens is not None:
            marks = replace(marks, end=torch.full_like(marks.end, prompt_tokens))
        visible = position_rules.prompt_visible(marks, config.rule, length)[0, 0].sum(-1)
        positions = position_rules.prompt_positions(marks, config.rule, length)[0]
        self._length, self._position = length, int(marks.at_last_token())
        self._block = length - int(marks.sop)
        return self._tokens(ids, 0, visible, positions, wanted)

    def append(self, token: int) -> Tokens:
        """Return one more token of the answer."""
        self._length += 1
        self._block += 1
        positions = torch.tensor([[self._position], [self._block]])
        return self._tokens([token], self._length - 1, torch.tensor([self._length]), positions, 1)

    def _tokens(
        self, ids: Sequence[int], first: int, visible: Tensor, positions: Tensor, wanted: int
    ) -> Tokens:
        cosines, sines = self._decoder.turns(positions)
        seen = (visible + self._first).numpy().astype(np.int32)
        return Tokens(
            self._cache, self._decoder.embed(ids), self._first + first, seen, cosines, sines, wanted
        )

    @torch.inference_mode()
    def _store_prefix(self) -> int:
        encoder = self._model.transformer.prefix_encoder
        if encoder is None:
            return 0
        pairs = encoder(1, torch.float32)
        # [layers, heads, n, d] -> [n, layers, heads, d]
        keys, values = (_by_token(torch.cat(part)) for part in zip(*pairs, strict=True))
        for place in range(encoder.length):
            self._decoder.native.store(self._cache, place, keys[place], values[place])
        return int(encoder.length)


def _by_token(layers: Tensor) -> Floats:
    rows: Floats = layers.permute(2, 0, 1, 3).contiguous().numpy()
    return rows


def _turns(half_width: int, precision: torch.dtype, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [T, head_width / 2] of positions [2, T]: those of the block follow."""
    cosines, sines = turn_table(positions.T, half_width, precision)
    return cosines.flatten(1), sines.flatten(1)


def _layer(layer: ChatGLMBlock) -> LayerParts:
    linears = {
        Role.QUERY: layer.attention.query_key_value,
        Role.ATTENTION_OUTPUT: layer.attention.dense,
        Role.UP: layer.mlp.dense_h_to_4h,
        Role.DOWN: layer.mlp.dense_4h_to_h,
    }
    return LayerParts(layer.input_layernorm, layer.post_attention_layernorm, linears)


def _shape(model: ChatGLMForConditionalGeneration) -> NativeShape:
    config = model.config
    return NativeShape(
        layers=config.num_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        key_heads=config.num_attention_heads,
        head_width=config.head_dim,
        inner_width=config.inner_hidden_size,
        norm=NormKind.LAYER_NORM,
        positions=Positions.ROTARY,
        rotary_parts=2,
        query_layout=QueryLayout.BY_HEAD,
        feed_forward=FeedForward.PLAIN_GELU,
        residual_from_norm=True,
        residual_scale=ALPHA,
        precise=dtype_of(model) == torch.float32,
        norm_epsilon=config.layernorm_epsilon,
    )
