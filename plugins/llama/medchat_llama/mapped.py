"""A LLaMA of packed weights that answers without torch: its tensors by their names, and its vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from medchat.checkpoints.adapter_folder import files_passed_over
from medchat.inference.cpu_engine.decoder_weights import DecoderWeights, LayerWeights, Norm, Role
from medchat.inference.mapped_chat_model import MappedChatModel, MappedDecoder, weight_facts
from medchat.inference.mapped_weights import MappedWeights
from medchat.inference.native_sequence import CausalSequence
from medchat.inference.quick_start import QuickStart
from medchat.inference.token_answers import ModelFacts
from medchat.plugin_kit import ChatModel
from medchat_llama.folder import EMBEDDING, HEAD, LlamaShape, llama_misfit, read_llama_shape, stored_rows
from medchat_llama.native import llama_native_shape, llama_turns
from medchat_llama.vocabulary import find_vocabulary, rows_note


def mapped_llama(ordinary: Callable[[], ChatModel], start: QuickStart) -> ChatModel:
    """Return a chat model of `start`; `ordinary` loads it with torch. Raises ValueError for what does not fit."""
    weights, folder = start.weights, start.options.model
    shape = read_llama_shape(folder)
    if misfit := llama_misfit(shape, weights.headers):
        raise ValueError(misfit)
    rows = stored_rows(weights.headers, shape)
    tokenizer = find_vocabulary(folder, rows)
    decoder = MappedDecoder(
        llama_native_shape(shape, precise=weights.dtype == "float32"),
        _decoder_weights(weights, shape, rows),
        weights.embedding(EMBEDDING, shape.hidden_size),
        partial(llama_turns, shape.hidden_size // shape.heads, shape.rope_theta),
    )
    details = {"vocab_size": rows, "adapters": (), **weight_facts(weights, head_is_embedding=shape.tied)}
    notes = (*rows_note(shape, rows, folder), *files_passed_over(start.original, ()))
    facts = ModelFacts("llama", folder, shape.context_length, details, notes)
    return MappedChatModel(decoder, CausalSequence, tokenizer, facts, ordinary)


def _decoder_weights(weights: MappedWeights, shape: LlamaShape, rows: int) -> DecoderWeights:
    layers = tuple(_layer(weights, f"model.layers.{number}", shape) for number in range(shape.layers))
    head = weights.packed(HEAD, rows, shape.hidden_size)
    return DecoderWeights(layers, Norm(weights.vector("model.norm.weight")), head)


def _layer(weights: MappedWeights, name: str, shape: LlamaShape) -> LayerWeights:
    width, inner = shape.hidden_size, shape.inner_size
    keys = width // shape.heads * shape.key_value_heads
    sizes = {
        Role.QUERY: ("self_attn.q_proj", width, width),
        Role.KEY: ("self_attn.k_proj", keys, width),
        Role.VALUE: ("self_attn.v_proj", keys, width),
        Role.ATTENTION_OUTPUT: ("self_attn.o_proj", width, width),
        Role.GATE: ("mlp.gate_proj", inner, width),
        Role.UP: ("mlp.up_proj", inner, width),
        Role.DOWN: ("mlp.down_proj", width, inner),
    }
    linears = {
        role: weights.linear(f"{name}.{part}", rows, columns) for role, (part, rows, columns) in sizes.items()
    }
    before_attention, before_feed_forward = (
        Norm(weights.vector(f"{name}.{part}.weight"))
        for part in ("input_layernorm", "post_attention_layernorm")
    )
    return LayerWeights(before_attention, before_feed_forward, linears)
