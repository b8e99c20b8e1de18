"""A loaded Bloom, Huozi or other model of this architecture as the chat engine sees it."""

from __future__ import annotations

from collections.abc import Callable

from medchat.api import LoadOptions
from medchat.torchside.adapter_kinds import positions_taken
from medchat.torchside.bloom.loading import load_bloom
from medchat.torchside.causal import CausalChatModel
from medchat.torchside.chat_model import ModelFacts
from medchat.torchside.decode import TextFilter, Unchanged


def load_chat_model(
    options: LoadOptions,
    *,
    backbone: str,
    base: str,
    required: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    cleanup: Callable[[], TextFilter] = Unchanged,
) -> CausalChatModel:
    """Load a checkpoint folder and its adapters for the plugin `backbone`.

    `base` is the key of `known_adapters.BASES`; `required` are control tokens without which the family
    cannot chat. Raises what `load_bloom` raises.
    """
    loaded = load_bloom(options, base, required)
    details = {
        "vocab_size": loaded.shape.vocab_size,
        "tokens": loaded.tokenizer.size,
        "adapters": tuple(str(adapter.folder) for adapter in loaded.adapters),
    }
    room = loaded.shape.context_length - positions_taken(loaded.adapters)
    return CausalChatModel(
        loaded.model,
        loaded.tokenizer,
        ModelFacts(backbone, options.model, room, details, (*loaded.notes, *notes)),
        stop_ids=loaded.shape.end_ids,
        token_count=loaded.tokenizer.size,
        cleanup=cleanup,
    )
