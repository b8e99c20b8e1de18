"""A whole decoder in the library: from the embeddings of tokens to logits in one call.

    decoder = NativeDecoder(shape, weights)
    cache = decoder.new_cache()
    logits = decoder.read([Tokens(cache, embeddings, first_place=0, visible=...)], threads=2)

Everything is checked here, before a pointer is made. Imports no torch.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medchat.errors import MemoryShortageError
from medchat.inference.cpu_engine.decoder_shape import NativeShape
from medchat.inference.cpu_engine.decoder_weights import DecoderWeights, Floats, Linear, Norm
from medchat.inference.cpu_engine.library import INSTRUCTION_SETS, chosen_instructions, open_library
from medchat.inference.interrupt import GenerationCancelled
from medchat.language import say

#: More places than any context has; the library counts them in 32 bits.
_PLACES = 2**24
_STOPPED = 2
#: The layer of what follows all layers: the last norm and the head.
_LAST = -1


class KeyValueCache:
    """Keys and values of one sequence, in the library's memory; given back with this object."""

    def __init__(self, pointer: int | None, owner: NativeDecoder) -> None:
        """Raises MemoryShortageError where there is no pointer."""
        if not pointer:
            raise _no_memory()
        self.pointer = pointer
        self._owner = owner
        self.room = 0
        release = open_library().functions.medchat_cache_destroy
        weakref.finalize(self, release, pointer)

    def belongs_to(self, decoder: NativeDecoder) -> bool:
        """Say whether it was made by `decoder`, whose shape it has."""
        return self._owner is decoder

    def copy(self) -> KeyValueCache:
        """Return a cache that holds the same, in the same memory as far as neither is written to.

        Raises MemoryShortageError.
        """
        made = KeyValueCache(open_library().functions.medchat_cache_copy(self.pointer), self._owner)
        made.room = self.room
        return made

    def reserve(self, places: int) -> None:
        """Make room for `places` tokens in all. Raises MemoryShortageError, and then holds what it held."""
        if not 0 <= places <= _PLACES:
            raise ValueError(f"{places} places")
        if places > self.room:
            if open_library().functions.medchat_cache_reserve(self.pointer, places):
                raise _no_memory()
            self.room = places


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Neighbouring tokens of one sequence, in float32.

    `embeddings` [T, width]; they go to the places from `first_place` on, and `visible` [T] says how many tokens from
    the beginning of the cache each of them sees, at least up to itself. `cosines` and `sines` [T, head_width / 2] where
    queries and keys turn. The results of the last `wanted` of them are computed.
    """

    cache: KeyValueCache
    embeddings: Floats
    first_place: int
    visible: NDArray[np.int32]
    cosines: Floats | None = None
    sines: Floats | None = None
    wanted: int = 1

    @property
    def end(self) -> int:
        """One past the last place."""
        return self.first_place + len(self.embeddings)


@dataclass(eq=False)
class NativeDecoder:
    """A decoder whose weights are packed. Raises ValueError where one has another shape than `shape` asks for.

    With a head `read` returns logits, without one the normalised states. One caller at a time.
    """

    shape: NativeShape
    weights: DecoderWeights
    _pointer: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights = self.weights
        weights.check(self.shape)
        functions = open_library().functions
        structure = self.shape.as_structure()
        self._pointer = functions.medchat_decoder_create(ctypes.addressof(structure))
        if not self._pointer:
            raise _no_memory()
        weakref.finalize(self, functions.medchat_decoder_destroy, self._pointer)
        for number, layer in enumerate(weights.layers):
            self._set_norm(number, 0, layer.before_attention)
            self._set_norm(number, 1, layer.before_feed_forward)
            for role, linear in layer.linears.items():
                self._set_linear(number, role, linear)
        self._set_norm(_LAST, 0, weights.final_norm)
        if weights.head is not None:
            self._set_linear(_LAST, 0, Linear(weights.head, low_rank=weights.head_low_rank))
        if weights.slopes is not None and functions.medchat_decoder_set_slopes(
            self._pointer, weights.slopes.ctypes.data
        ):
            raise _no_memory()

    @property
    def result_width(self) -> int:
        """How wide a row of results is."""
        head = self.weights.head
        return self.shape.width if head is None else head.rows

    def new_cache(self) -> KeyValueCache:
        """Return an empty cache. Raises MemoryShortageError."""
        return KeyValueCache(open_library().functions.medchat_cache_create(self._pointer), self)

    def store(self, cache: KeyValueCache, place: int, keys: Floats, values: Floats) -> None:
        """Write keys and values [layers, key_heads, head_width] of one token that is not computed to `place`.

        Raises ValueError for other shapes, MemoryShortageError.
        """
        shape = (self.shape.layers, self.shape.key_heads, self.shape.head_width)
        if keys.shape != shape or values.shape != shape or not cache.belongs_to(self):
            raise ValueError(f"keys {keys.shape} and values {values.shape} for {shape}")
        cache.reserve(place + 1)
        keys, values = _floats(keys), _floats(values)
        for layer in range(self.shape.layers):
            if open_library().functions.medchat_cache_store(
                *(self._pointer, cache.pointer, layer, place),
                keys[layer].ctypes.data,
                values[layer].ctypes.data,
            ):
                raise _no_memory()

    def read(
        self, parts: Sequence[Tokens], *, threads: int = 1, cancelled: Callable[[], bool] | None = None
    ) -> Floats:
        """Read the tokens of `parts`, each of another sequence; return the wanted results [W, result_width].

        A token's result depends neither on the others of other sequences, nor on the threads, nor on the instruction
        set. Raises ValueError for what does not fit, GenerationCancelled soon after `cancelled` says so (it is asked
        every few milliseconds), MemoryShortageError. What the places of these tokens hold is then of no use; all
        before them is as it was.
        """
        self._check_tokens(parts, threads)
        for part in parts:
            part.cache.reserve(part.end)
        places = [np.arange(part.first_place, part.end, dtype=np.int32) for part in parts]
        ends = np.cumsum([len(part.embeddings) for part in parts])
        wanted = [np.arange(end - part.wanted, end) for part, end in zip(parts, ends, strict=True)]
        turns = self.shape.turn_width() > 0
        arrays: dict[str, Any] = {
            "caches": np.concatenate(
                [np.full(len(part.embeddings), part.cache.pointer, np.uintp) for part in parts]
            ),
            "places": np.concatenate(places),
            "visible": np.concatenate([part.visible for part in parts]).astype(np.int32),
            "embeddings": np.concatenate([_floats(part.embeddings) for part in parts]),
            "cosines": np.concatenate([_floats(part.cosines) for part in parts]) if turns else None,
            "sines": np.concatenate([_floats(part.sines) for part in parts]) if turns else None,
            "wanted": np.concatenate(wanted).astype(np.int32),
        }
        results = np.empty((len(arrays["wanted"]), self.result_width), np.float32)
        self._run(arrays, results, threads, cancelled)
        return results

    def _run(
        self,
        arrays: Mapping[str, Any],
        results: Floats,
        threads: int,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        library, question = open_library(), _Question(cancelled)
        step = _Step(
            set=INSTRUCTION_SETS.index(chosen_instructions(library)),
            threads=threads,
            tokens=len(arrays["places"]),
            wanted_count=len(results),
            outputs=results.ctypes.data,
            cancelled=question.callback,
            **{name: None if array is None else array.ctypes.data for name, array in arrays.items()},
        )
        outcome = library.functions.medchat_decoder_step(self._pointer, ctypes.addressof(step))
        if question.failure is not None:
            raise question.failure
        if outcome:
            raise GenerationCancelled if outcome == _STOPPED else _no_memory()

    def _set_linear(self, layer: int, role: int, linear: Linear) -> None:
        matrix, bias = linear.matrix, linear.bias
        open_library().functions.medchat_decoder_set_linear(
            *(self._pointer, layer, role, matrix.bits, matrix.rows, matrix.columns, matrix.data.ctypes.data),
            None if bias is None else bias.ctypes.data,
        )
        if (added := linear.low_rank) is not None:
            open_library().functions.medchat_decoder_set_low_rank(
                *(self._pointer, layer, role, len(added.down), added.down.ctypes.data, added.up.ctypes.data)
            )

    def _set_norm(self, layer: int, role: int, norm: Norm) -> None:
        bias = None if norm.bias is None else norm.bias.ctypes.data
        open_library().functions.medchat_decoder_set_norm(
            self._pointer, layer, role, norm.weight.ctypes.data, bias
        )

    def _check_tokens(self, parts: Sequence[Tokens], threads: int) -> None:
        width, turn_width = self.shape.width, self.shape.turn_width()
        if threads < 1 or not parts or len({part.cache.pointer for part in parts}) < len(parts):
            raise ValueError(f"{len(parts)} parts of as many sequences on {threads} threads")
        for part in parts:
            count = len(part.embeddings)
            turns = [None if table is None else table.shape for table in (part.cosines, part.sines)]
            fits = (
                part.cache.belongs_to(self)
                and count > 0
                and part.embeddings.shape == (count, width)
                and turns == ([(count, turn_width)] * 2 if turn_width else [None] * 2)
                and part.visible.shape == (count,)
                and part.first_place >= 0
                and (part.visible > np.arange(part.first_place, part.end)).all()
                and (part.visible <= part.end).all()
                and 0 < part.wanted <= count
            )
            if not fits:
                raise ValueError(f"tokens {part} for {self.shape}")


def _floats(array: Any) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _no_memory() -> MemoryShortageError:
    return MemoryShortageError(say("运行中内存不足", "memory ran out while running"))


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int)


class _Question:
    """The library's question whether to stop. An exception in it (Ctrl-C) stops too and is kept for the caller."""

    def __init__(self, cancelled: Callable[[], bool] | None) -> None:
        self.failure: BaseException | None = None
        self._cancelled = cancelled
        self.callback = _CALLBACK(self._ask) if cancelled else _CALLBACK()

    def _ask(self) -> int:
        try:
            return int(self._cancelled is not None and self._cancelled())
        # Nothing may pass through the library's frames.
        except BaseException as error:
            self.failure = error
            return 1


class _Step(ctypes.Structure):
    """As in native/decoder.h."""

    _fields_ = [
        ("set", ctypes.c_int32),
        ("threads", ctypes.c_size_t),
        ("tokens", ctypes.c_size_t),
        ("caches", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("visible", ctypes.c_void_p),
        ("embeddings", ctypes.c_void_p),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
        ("wanted", ctypes.c_void_p),
        ("wanted_count", ctypes.c_size_t),
        ("outputs", ctypes.c_void_p),
        ("cancelled", _CALLBACK),
    ]
