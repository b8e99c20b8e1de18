"""A chat model of packed weights that the native engine computes whole, without torch.

What takes torch (beams, batches, scores) is left to the model loaded in the ordinary way, once it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from medchat.api import ChatModel, Completion, Delta, GenerationConfig, Segment
from medchat.inference.answer_deltas import TextFilter
from medchat.inference.cpu_engine.decoder import NativeDecoder, Tokens
from medchat.inference.cpu_engine.decoder_shape import NativeShape
from medchat.inference.cpu_engine.decoder_weights import DecoderWeights, Floats
from medchat.inference.cpu_engine.library import chosen_instructions, open_library
from medchat.inference.decode import ChatTokenizer
from medchat.inference.machine import thread_count
from medchat.inference.mapped_weights import Embedding, MappedWeights
from medchat.inference.memory_shortage import give_back_memory
from medchat.inference.native_sequence import NativeSequence, Places, SequenceDecoder, SequenceStepper
from medchat.inference.postprocess import StrippedAnswer
from medchat.inference.token_answers import ModelFacts, TokenAnswers


class MappedDecoder:
    """A decoder whose weights are mapped, with its embedding and its turns: a `SequenceDecoder`."""

    def __init__(
        self,
        shape: NativeShape,
        weights: DecoderWeights,
        embedding: Embedding,
        turns: Callable[[Places], tuple[Floats, Floats]],
    ) -> None:
        """`turns` gives cosines and sines: see `SequenceDecoder`. Raises ValueError for a shape that does not fit."""
        self.native = NativeDecoder(shape, weights)
        self._embedding, self._turns = embedding, turns
        self.threads = thread_count()

    def embed(self, ids: Sequence[int]) -> Floats:
        """Return the states [T, width] that the first layer reads."""
        return self._embedding(ids)

    def turns(self, positions: Places) -> tuple[Floats | None, Floats | None]:
        """Return cosines and sines [T, head_width / 2] of `positions`, [T] or [n, T]."""
        return self._turns(positions)

    def read(self, tokens: Sequence[Tokens], cancelled: Callable[[], bool] | None = None) -> Floats:
        """Read `tokens`, each of another sequence; return the logits [W, V]. Raises as `NativeDecoder.read`."""
        return self.native.read(tokens, threads=self.threads, cancelled=cancelled)


class MappedChatModel(TokenAnswers):
    """One model and its tokenizer. One caller at a time."""

    def __init__(
        self,
        decoder: MappedDecoder,
        begin: Callable[[SequenceDecoder], NativeSequence],
        tokenizer: ChatTokenizer,
        facts: ModelFacts,
        ordinary: Callable[[], ChatModel],
        *,
        stop_ids: Collection[int] = (),
        cleanup: Callable[[], TextFilter] = StrippedAnswer,
    ) -> None:
        """`begin` makes an empty sequence; `ordinary` loads the same model with torch. Else as `TokenAnswers`."""
        stepper = SequenceStepper(decoder, begin)
        super().__init__(tokenizer, stepper, facts, stop_ids=stop_ids, cleanup=cleanup)
        self._decoder, self._load_ordinary = decoder, ordinary
        self._ordinary: ChatModel | None = None

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt, piece by piece; beam search gives its answer whole, at the end."""
        if config.num_beams == 1:
            yield from super().stream(segments, config, cancel)
        else:
            yield from self._with_torch().stream(segments, config, cancel)

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        """Answer several prompts at once, in their order: see `ChatModel`."""
        return self._with_torch().generate_batch(prompts, config)

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer` and of the end token after it."""
        return self._with_torch().score(segments, answer)

    def describe(self) -> Mapping[str, Any]:
        """Return what is loaded, in plain values."""
        return {
            "backbone": self._facts.backbone,
            "model": str(self._facts.path),
            "device": "cpu",
            "engine": f"native {chosen_instructions(open_library())}",
            "threads": self._decoder.threads,
            "context_length": self.context_length,
            **self._facts.details,
            **self.speculation.describe(),
            "notes": self._facts.notes,
        }

    def close(self) -> None:
        """Give the memory back, once. The model must not be used afterwards."""
        self._stepper.forget()
        if self._ordinary is not None:
            self._ordinary.close()
        give_back_memory()

    def _with_torch(self) -> ChatModel:
        if self._ordinary is None:
            self._ordinary = self._load_ordinary()
        return self._ordinary


def weight_facts(weights: MappedWeights, *, head_is_embedding: bool) -> dict[str, Any]:
    """Return what `describe` says of `weights`, all of which were taken.

    A packed head that was made from the embedding counts as no weights of its own.
    """
    embeddings = [header for header in weights.headers.values() if len(header.shape) > 1]
    total = sum(header.byte_count for header in weights.headers.values())
    shared = sum(header.count for header in embeddings) if head_is_embedding else 0
    return {
        "dtype": weights.dtype,
        "parameters": weights.count - shared,
        "weight_bytes": total - sum(header.byte_count for header in embeddings),
        "quantization": weights.quantization,
    }
