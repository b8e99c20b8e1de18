"""A ChatGLM in the native engine: its shape, how its tokens turn, and how its sequences are counted. No torch here.

Nothing is kept from prompt to prompt, as in `stepper`: a new question changes the keys and values of all before it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medchat.inference.cpu_engine.decoder import Tokens
from medchat.inference.cpu_engine.decoder_shape import (
    FeedForward,
    NativeShape,
    NormKind,
    Positions,
    QueryLayout,
)
from medchat.inference.cpu_engine.decoder_weights import Floats
from medchat.inference.decode import DraftVerifier, ForgettingStepper, Stepper, verifier_of
from medchat.inference.native_sequence import SequenceDecoder
from medchat.inference.sampling import Logits
from medchat.inference.token_answers import TokenAnswers
from medchat.plugin_kit import Delta, GenerationConfig, Segment
from medchat_chatglm.config_file import ALPHA, ChatGLMValues
from medchat_chatglm.prompt_places import prompt_places

_BASE = np.float32(10000.0)


def chatglm_native_shape(config: ChatGLMValues, *, precise: bool) -> NativeShape:
    """Return the shape of the model that `config` describes; `precise`: computed in float32."""
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
        precise=precise,
        norm_epsilon=config.layernorm_epsilon,
    )


def turns_are_half(rotary_precision: str, compute: str) -> bool:
    """Say whether cosines and sines are float16, and not float32, in a model that computes in `compute`.

    "auto" uses float32 for bfloat16 models: bfloat16 cannot distinguish positions above 256.
    """
    return compute == "float16" if rotary_precision == "auto" else rotary_precision == "float16"


def chatglm_turns(half_width: int, half: bool, positions: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return cosines and sines [T, half_width] of positions [2, T]: those of the block position follow.

    As `rotary.turn_table` has them: the frequencies are rounded to float16, and if `half` everything else too.
    """
    exponents = np.arange(0, half_width, 2, dtype=np.float32) / np.float32(half_width)
    precision: type[np.floating[Any]] = np.float16 if half else np.float32
    frequencies = (1 / _BASE**exponents).astype(np.float16).astype(precision)
    angles = positions.T.astype(precision)[..., None] * frequencies
    flat = angles.reshape(len(angles), -1)
    return np.cos(flat).astype(np.float32), np.sin(flat).astype(np.float32)


class ChatGLMSequence:
    """A prompt that sees itself in both directions, behind the prefix that the model has, and its answer."""

    #: A bidirectional prompt cannot reuse the last one's cache.
    reused = 0

    def __init__(
        self, config: ChatGLMValues, prefix: tuple[Floats, Floats] | None, decoder: SequenceDecoder
    ) -> None:
        """`prefix`: the keys and the values [n, layers, heads, head_width] of a P-tuning prefix."""
        self._config = config
        self._decoder = decoder
        self._cache = decoder.native.new_cache()
        keys, values = prefix or ((), ())
        self._first = len(keys)
        for place in range(self._first):
            decoder.native.store(self._cache, place, keys[place], values[place])
        self._length = self._position = self._block = 0

    def prompt(self, ids: Sequence[int], *, prompt_tokens: int | None = None, wanted: int = 1) -> Tokens:
        """Return all tokens of a prompt; ids behind the first `prompt_tokens` are as if they had been generated.

        Raises DataError for a prompt without mask token and `<sop>`.
        """
        found = prompt_places(ids, self._config.special_ids, self._config.rule, prompt_tokens)
        self._length, self._position, self._block = len(ids), found.position, found.block
        return self._tokens(ids, 0, found.visible, found.positions, wanted)

    def append(self, *tokens: int) -> Tokens:
        """Return more tokens of the answer, with the results of all of them."""
        first, count = self._length, len(tokens)
        more = np.arange(1, count + 1)
        positions = np.stack([np.full(count, self._position), self._block + more])
        self._length += count
        self._block += count
        return self._tokens(tokens, first, first + more, positions, count)

    def crop(self, count: int) -> None:
        """Drop the last `count` tokens that were appended."""
        self._length -= count
        self._block -= count

    def copy(self) -> ChatGLMSequence:
        """Return a sequence that holds the same: see `NativeSequence`."""
        made = copy(self)
        made._cache = self._cache.copy()
        return made

    def _tokens(
        self,
        ids: Sequence[int],
        first: int,
        visible: NDArray[np.int64],
        positions: NDArray[np.int64],
        wanted: int,
    ) -> Tokens:
        cosines, sines = self._decoder.turns(positions)
        seen = (visible + self._first).astype(np.int32)
        return Tokens(
            self._cache, self._decoder.embed(ids), self._first + first, seen, cosines, sines, wanted
        )


class NothingKept(TokenAnswers):
    """Answers to prompts that are read again each turn: a new question changes every state of the last one."""

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Stream the answer to one prompt; beam search returns its complete answer at the end."""
        try:
            yield from super().stream(segments, config, cancel)
        finally:
            self._stepper.forget()

    def go_on(
        self, segments: Sequence[Segment], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Yield the continuation of `answer`, the beginning of the answer to the prompt."""
        try:
            yield from super().go_on(segments, answer, config, cancel)
        finally:
            self._stepper.forget()

    def stepper_behind(self, prompt_tokens: int) -> Stepper:
        """Return the stepper for a prompt of that length and the beginning of its answer, which is read causally."""
        return BegunAnswer(self._stepper, prompt_tokens)


class BegunAnswer:
    """A stepper whose first ids are a prompt of `prompt_tokens` and the beginning of its answer."""

    def __init__(self, stepper: ForgettingStepper, prompt_tokens: int) -> None:
        self._stepper = stepper
        self._prompt_tokens = prompt_tokens

    @property
    def reused_tokens(self) -> int:
        """As in the wrapped stepper."""
        return self._stepper.reused_tokens

    @property
    def verifier(self) -> DraftVerifier | None:
        """That of the wrapped stepper."""
        return verifier_of(self._stepper)

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> Logits:
        """Prefill prompt and beginning. Returns logits [V]."""
        return self._stepper.prefill(ids, cancel, prompt_tokens=self._prompt_tokens)

    def advance(self, token: int) -> Logits:
        """Append one token. Returns logits [V]."""
        return self._stepper.advance(token)
