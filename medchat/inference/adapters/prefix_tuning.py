"""Prefix tuning of causal language models, in peft's layout: learned keys and values before the text.

    adapter_config.json         peft's, with "peft_type": "PREFIX_TUNING"
    adapter_model.safetensors   prompt_embeddings [n, 2 * layers * key_value_width]

As in peft the prefix is the beginning of the cache: n positions that every token sees, and text counts its
positions from n. peft does this in a model of its own around ours, which reads every prompt again; here a
hook in front of the decoder fills an empty cache, so that training, streaming, kept caches and `generate` all
continue working with the model itself. There is no way for a prefix to begin without any effect.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PrefixEncoder, PrefixTuningConfig
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from medchat.checkpoints.adapter_folder import PREFIX_TENSOR, KeyValueAdapter, no_fit
from medchat.errors import CheckpointError
from medchat.inference.load_weights import Placement, assign
from medchat.language import say

#: What the prefix is called in the model.
CHILD = "prefix_encoder"


def prefix_settings(model: PreTrainedModel, length: int, *, projection: bool = False) -> PrefixTuningConfig:
    """Return peft's configuration of a prefix for `model`; heads are those of its keys and values."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = config.hidden_size // config.num_attention_heads * heads
    return PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=length,
        num_transformer_submodules=1,
        num_layers=config.num_hidden_layers,
        num_attention_heads=heads,
        token_dim=width,
        encoder_hidden_size=config.hidden_size,
        prefix_projection=projection,
    )


def check_prefix_fit(model: PreTrainedModel, adapter: KeyValueAdapter) -> None:
    """Hold the adapter against `model`, which may be on the meta device. Raises CheckpointError."""
    length, width = adapter.shape
    settings = prefix_settings(model, length)
    own = 2 * settings.num_layers * settings.token_dim
    if width != own or not length:
        raise no_fit(adapter.folder, f"{length}x{width}, {length}x{own}")


def attach_prefix(model: PreTrainedModel, adapter: KeyValueAdapter, device: torch.device) -> None:
    """Put the prefix before all that `model` reads, in float32. Raises CheckpointError: another model's."""
    if has_prefix(model):
        raise CheckpointError(
            say("一次只能使用一个前缀", "only one prefix can be used at a time"),
            say("请只保留一个这样的 --adapter", "keep one such --adapter"),
            where=str(adapter.folder),
        )
    settings = prefix_settings(model, adapter.shape[0])
    with torch.device("meta"):
        encoder = PrefixEncoder(settings)
    placement = Placement(torch.float32, device, rename=lambda _: "embedding.weight")
    assign(encoder, adapter.checkpoint, adapter.headers, placement)
    _attach(model, encoder.requires_grad_(False))


def insert_prefix(model: PreTrainedModel, length: int, *, projection: bool = False) -> PrefixTuningConfig:
    """Put a prefix with random values before all that `model` reads; only it is trainable, in float32."""
    settings = prefix_settings(model, length, projection=projection)
    model.requires_grad_(False)
    _attach(model, PrefixEncoder(settings).to(model.device))
    return settings


def has_prefix(model: nn.Module) -> bool:
    """Say whether `model` has a prefix."""
    return isinstance(getattr(model, CHILD, None), PrefixEncoder)


@torch.no_grad()
def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the prefix as it is stored: without its projection, which is done once and for all.

    Shape [n, 2 * layers * width].
    """
    return {PREFIX_TENSOR: _rows(model.get_submodule(CHILD)).detach()}


def _attach(model: PreTrainedModel, encoder: nn.Module) -> None:
    model.add_module(CHILD, encoder)
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads

    def begin(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rows = _rows(encoder)
        cache, length = kwargs.get("past_key_values"), len(rows)
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs["inputs_embeds"]
        if cache is None or cache.get_seq_length() == 0:
            kwargs["past_key_values"] = cache = DynamicCache(config=config) if cache is None else cache
            _fill(cache, rows.to(model.dtype), len(given), config.num_hidden_layers, heads)
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        if mask is not None:
            kwargs["attention_mask"] = torch.cat((mask.new_ones(len(mask), length), mask), dim=1)
        if positions is not None:
            kwargs["position_ids"] = positions + length
        return args, kwargs

    model.base_model.register_forward_pre_hook(begin, with_kwargs=True)


def _rows(encoder: nn.Module) -> Tensor:
    """Return the prefix, [n, 2 * layers * width], with whatever its projection makes of it."""
    table = encoder.get_parameter("embedding.weight")
    rows: Tensor = encoder(torch.arange(len(table), device=table.device))
    return rows


def _fill(cache: Any, rows: Tensor, batch: int, layers: int, heads: int) -> None:
    """Make the prefix the beginning of an empty cache: rows [n, 2 * layers * width], keys before values."""
    # [n, 2L, heads, d] -> [2L, B, heads, n, d]
    parts = rows.view(len(rows), 2 * layers, heads, -1).permute(1, 2, 0, 3)
    parts = parts.unsqueeze(1).expand(-1, batch, -1, -1, -1)
    for layer in range(layers):
        cache.update(parts[2 * layer], parts[2 * layer + 1], layer)
