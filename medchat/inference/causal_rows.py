"""Several sequences of a causal model of transformers that take their tokens together.

Each prompt is read by a stepper of its own. Where more than one sequence goes on, their keys and values are put
together in one cache, padded between a trained prefix and the text, and divided again when one joins or leaves. In
float32 the tokens are those of each alone. Not for models that forget keys (`keeps_every_key`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from medchat.inference.growing_cache import growing_cache
from medchat.inference.kv_cache import CausalStepper, PaddedReader


class CausalRows:
    """The sequences of one model. The last that ended is kept: a prompt that begins alike is read from there."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._reader = PaddedReader(model)
        self._kept: CausalStepper | None = None
        self._joined: _Joined | None = None

    def begin(self, ids: Sequence[int], cancel: threading.Event) -> tuple[CausalStepper, Tensor, int]:
        """Read a prompt alone: see `Rows`, as all that follows."""
        stepper, self._kept = self._kept or CausalStepper(self._model), None
        logits = stepper.prefill(ids, cancel)
        return stepper, logits, stepper.reused_tokens

    @torch.inference_mode()
    def advance(self, rows: Sequence[CausalStepper], tokens: Sequence[int]) -> Tensor:
        """Append one token to each. Returns logits [B, V]."""
        if self._joined is None or self._joined.rows != tuple(rows):
            self._divide()
            if len(rows) == 1:
                return rows[0].advance(tokens[0])[None]
            self._joined = _Joined(self._model, tuple(rows))
        return self._joined.advance(self._reader, tokens)

    def end(self, row: CausalStepper) -> None:
        """Keep `row` for the next prompt."""
        if self._joined is not None and row in self._joined.rows:
            self._divide()
        self._kept = row

    def forget(self) -> None:
        """Drop what is kept, and what is joined."""
        self._kept = self._joined = None

    @torch.inference_mode()
    def _divide(self) -> None:
        joined, self._joined = self._joined, None
        if joined is not None:
            joined.divide()


@dataclass(slots=True)
class _Joined:
    """Sequences whose keys and values are in one cache: [prefix, padding, text] each."""

    model: PreTrainedModel
    rows: tuple[CausalStepper, ...]
    appended: list[Sequence[int]] = field(default_factory=list)
    cache: DynamicCache = field(init=False)
    mask: Tensor = field(init=False)
    paddings: list[int] = field(init=False)
    prefix: int = field(init=False)

    def __post_init__(self) -> None:
        lent = [row.lend_cache() for row in self.rows]
        longest = max(length for _, length in lent)
        self.paddings = [longest - length for _, length in lent]
        self.prefix = lent[0][0].get_seq_length() - lent[0][1]
        layers = [cache.layers for cache, _ in lent]
        self.cache = self._new_cache(
            len(layers[0]),
            lambda number, part: torch.cat(
                [
                    self._padded(getattr(one[number], part), padding)
                    for one, padding in zip(layers, self.paddings, strict=True)
                ]
            ),
        )
        device = self.model.device
        self.mask = torch.ones((len(lent), longest), dtype=torch.long, device=device)
        for index, padding in enumerate(self.paddings):
            self.mask[index, :padding] = 0

    def advance(self, reader: PaddedReader, tokens: Sequence[int]) -> Tensor:
        ids = torch.tensor(list(tokens), device=self.model.device)[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        logits = reader.read(ids, self.mask, self.cache, 1)[:, -1]
        self.appended.append(tokens)
        return logits

    def divide(self) -> None:
        """Give each sequence its own keys and values back."""
        layers, prefix = self.cache.layers, self.prefix
        for index, (row, padding) in enumerate(zip(self.rows, self.paddings, strict=True)):

            def own(number: int, part: str, index: int = index, padding: int = padding) -> Tensor:
                values: Tensor = getattr(layers[number], part)[index : index + 1]
                return torch.cat([values[:, :, :prefix], values[:, :, prefix + padding :]], dim=2)

            row.take_cache(self._new_cache(len(layers), own), [tokens[index] for tokens in self.appended])

    def _padded(self, values: Tensor, padding: int) -> Tensor:
        filling = values.new_zeros((*values.shape[:2], padding, values.shape[3]))
        return torch.cat([values[:, :, : self.prefix], filling, values[:, :, self.prefix :]], dim=2)

    def _new_cache(self, layers: int, values: Callable[[int, str], Tensor]) -> DynamicCache:
        cache = growing_cache(self.model.config)
        for number in range(layers):
            cache.update(values(number, "keys"), values(number, "values"), number)
        return cache
