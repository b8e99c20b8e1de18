"""A cache for decoding that writes a new token into spare capacity instead of copying everything.

The library's own dynamic cache concatenates, copying its content for each token. Not for training: it writes
in place.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

#: How much the buffers grow when they are full: by this many tokens, or by that fraction if it is more.
_SPARE_TOKENS, _SPARE_PART = 256, 4


class GrowingCacheLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, views of larger buffers [B, heads, room, head_dim]."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append [B, heads, T, head_dim]; return all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        filled = held + key_states.shape[-2]
        if self._rooms is None or not self._fits(filled):
            self._rooms = _moved(self.keys, key_states, held), _moved(self.values, value_states, held)
        views = []
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., held:filled, :] = states
            views.append(room[..., :filled, :])
        self.keys, self.values = views
        return self.keys, self.values

    def _fits(self, filled: int) -> bool:
        """Return whether `keys` is still a view of the buffers (beam search replaces it) and they have room."""
        assert self._rooms is not None
        room = self._rooms[0]
        same = self.keys.data_ptr() == room.data_ptr() and self.keys.shape[:2] == room.shape[:2]
        return same and filled <= room.shape[-2]


def _moved(old: Tensor, states: Tensor, held: int) -> Tensor:
    """Return a larger buffer with the content of `old` and room for `states`."""
    room = held + states.shape[-2] + max(_SPARE_TOKENS, held // _SPARE_PART)
    buffer = states.new_empty(*states.shape[:2], room, states.shape[-1])
    if held:
        buffer[..., :held, :] = old
    return buffer


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache for a model of `config`; layers that forget keys stay the library's."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingCacheLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
