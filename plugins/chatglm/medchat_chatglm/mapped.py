"""A ChatGLM of packed weights that answers without torch: its tensors by their names, and its vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from medchat.checkpoints.adapter_folder import files_passed_over
from medchat.inference.cpu_engine.decoder_weights import DecoderWeights, LayerWeights, Norm, Role
from medchat.inference.mapped_chat_model import MappedChatModel, MappedDecoder, weight_facts
from medchat.inference.mapped_weights import MappedWeights
from medchat.inference.quick_start import QuickStart
from medchat.inference.token_answers import ModelFacts
from medchat.plugin_kit import ChatModel
from medchat_chatglm.cleanup import StreamingResponse
from medchat_chatglm.config_file import ChatGLMValues
from medchat_chatglm.config_reading import read_values, with_stated_rule
from medchat_chatglm.inspection import EMBEDDING, HEAD, is_tied, read_chatglm_vocabulary
from medchat_chatglm.native import (
    ChatGLMSequence,
    NothingKept,
    chatglm_native_shape,
    chatglm_turns,
    turns_are_half,
)


class MappedChatGLM(NothingKept, MappedChatModel):
    """One model and its tokenizer; the prompt is read again each turn."""


def mapped_chatglm(ordinary: Callable[[], ChatModel], start: QuickStart) -> ChatModel:
    """Return a chat model of `start`; `ordinary` loads it with torch. Raises ValueError for what does not fit."""
    weights, options = start.weights, start.options
    config = read_values(options.model, with_stated_rule(options))
    if config.pre_seq_len or config.quantization_bit:
        raise ValueError("a prefix, or the published layout of quantised weights")
    tokenizer = read_chatglm_vocabulary(options.model, asdict(config))
    half = turns_are_half(config.rotary_precision, weights.dtype)
    decoder = MappedDecoder(
        chatglm_native_shape(config, precise=weights.dtype == "float32"),
        _decoder_weights(weights, config),
        weights.embedding(EMBEDDING, config.hidden_size),
        partial(chatglm_turns, config.head_dim // 2, half),
    )
    details = weight_facts(weights, head_is_embedding=is_tied(asdict(config)))
    details |= {"rule": str(config.rule), "vocab_size": config.vocab_size}
    notes = files_passed_over(start.original, ())
    facts = ModelFacts("chatglm", options.model, config.max_sequence_length, details, notes)
    return MappedChatGLM(
        decoder,
        partial(ChatGLMSequence, config, None),
        tokenizer,
        facts,
        ordinary,
        stop_ids=config.stop_ids,
        cleanup=partial(StreamingResponse, full_width=tokenizer.generation == "v11"),
    )


def _decoder_weights(weights: MappedWeights, config: ChatGLMValues) -> DecoderWeights:
    layers = tuple(
        _layer(weights, f"transformer.layers.{number}", config) for number in range(config.num_layers)
    )
    head = weights.packed(HEAD, config.vocab_size, config.hidden_size)
    return DecoderWeights(layers, _norm(weights, "transformer.final_layernorm"), head)


def _layer(weights: MappedWeights, name: str, config: ChatGLMValues) -> LayerWeights:
    width, inner = config.hidden_size, config.inner_hidden_size
    sizes = {
        Role.QUERY: ("attention.query_key_value", 3 * width, width),
        Role.ATTENTION_OUTPUT: ("attention.dense", width, width),
        Role.UP: ("mlp.dense_h_to_4h", inner, width),
        Role.DOWN: ("mlp.dense_4h_to_h", width, inner),
    }
    linears = {
        role: weights.linear(f"{name}.{part}", rows, columns, bias=True)
        for role, (part, rows, columns) in sizes.items()
    }
    before_attention = _norm(weights, f"{name}.input_layernorm")
    return LayerWeights(before_attention, _norm(weights, f"{name}.post_attention_layernorm"), linears)


def _norm(weights: MappedWeights, name: str) -> Norm:
    """Return a norm, which is float32 in a model of any dtype."""
    return Norm(weights.vector(f"{name}.weight", exact=True), weights.vector(f"{name}.bias", exact=True))
