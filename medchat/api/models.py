"""A checkpoint described, and a model loaded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medchat.api.generation import Completion, Delta, GenerationConfig
from medchat.api.prompts import Segment


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a checkpoint folder is, learned without loading its weights. `models show` prints what is known.

    Make it with keywords. A number that is not known is 0.
    """

    #: The name of the backbone that loads it.
    backbone: str
    #: What the model is called within the backbone (`qwen2`).
    family: str
    #: The folder.
    path: Path
    #: Rows of the embedding.
    vocab_size: int = 0
    #: Transformer blocks.
    layers: int = 0
    #: Width of the residual.
    hidden_size: int = 0
    #: How many there are, adapters not counted.
    parameters: int = 0
    #: What the tensors are stored as ("float16"), each once.
    dtypes: tuple[str, ...] = ()
    #: Bytes of the tensors on the disk.
    weight_bytes: int = 0
    #: Tokens that prompt and answer may take together.
    context_length: int = 0
    #: The name of the template that such weights are asked in, "" if none can be used.
    template: str = ""
    #: "none", or what the stored weights are quantised to ("int4").
    quantization: str = "none"
    #: What else a user should know of the folder, a line each, in the interface language.
    notes: tuple[str, ...] = ()
    #: The release within the family, "" if there is one only.
    generation: str = ""
    #: Names of published adapters that were trained on such weights.
    adapters: tuple[str, ...] = ()

    def memory(self, bytes_per_parameter: float) -> int:
        """Return the bytes that the weights alone need at that width."""
        return int(self.parameters * bytes_per_parameter)


@dataclass(frozen=True, slots=True)
class AdapterCard:
    """What an adapter folder holds. `models show` prints it.

    `known_as` is the published adapter that it is, "" for any other; `fault` says in a clause why it cannot
    be used on any model, "" if nothing is wrong with the folder itself. `notes` are what else a user should
    know: which files were passed over for others.
    """

    known_as: str = ""
    fault: str = ""
    notes: tuple[str, ...] = ()


@runtime_checkable
class ChatModel(Protocol):
    """A loaded model. One caller at a time, or several (`Capabilities.concurrent`); `cancel` comes from any thread."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may take together."""
        ...

    def stream(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Answer one prompt, piece by piece. Ends soon after `cancel` is set, with Finish.CANCELLED."""
        ...

    def generate_batch(
        self, prompts: Sequence[Sequence[Segment]], config: GenerationConfig
    ) -> list[Completion]:
        """Answer several prompts at once, in their order.

        In float32 each equals what it would be alone. In half precision the neighbours of a prompt change how its
        logits are rounded: where the two best tokens are that close, the choice may be another.
        """
        ...

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer` and of the end token after it."""
        ...

    def count(self, segments: Sequence[Segment]) -> int:
        """Return the length of the prompt in tokens."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what is loaded, for `--json`, `/stats` and logs: at least `backbone`, `model`, `dtype`, `device`.

        `notes`, where there are any, are lines that loading has to tell the user. `prices`, where answers cost
        money, maps `prompt` and `completion` to the price of a million tokens, and `currency` to a code (`USD`).
        """
        ...

    def close(self) -> None:
        """Give the memory back; a second call does nothing. The model must not be used afterwards."""
        ...


@runtime_checkable
class ContinuingModel(ChatModel, Protocol):
    """A model that can continue with an answer that was cut off. Optional: `/continue` needs it."""

    def go_on(
        self, segments: Sequence[Segment], answer: str, config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """Yield what comes after `answer`, which begins the answer to the prompt; else as `stream`.

        Tokens of `answer` count as prompt. Raises UsageError if the configuration allows no such thing.
        """
        ...


@runtime_checkable
class BatchScoringModel(ChatModel, Protocol):
    """A model that scores the answers to several prompts together. Optional: others are asked for one at a time."""

    def score_batch(
        self, prompts: Sequence[Sequence[Segment]], answers: Sequence[Sequence[str]]
    ) -> list[list[tuple[float, ...]]]:
        """Return for each prompt what `score` gives for each of its `answers`, in their order.

        A prompt is read once, however many answers it has, so that the options of a choice cost little more than
        one of them. In float32 each value is what `score` gives, to rounding. Raises what `score` raises.
        """
        ...


@runtime_checkable
class BatchStreamingModel(ChatModel, Protocol):
    """A model that streams several answers at a time, computed together. Optional: others are asked for one."""

    @property
    def exact_in_batch(self) -> bool:
        """Whether every answer is what it would be alone, as the model is loaded. Where not, it is asked for one."""
        ...

    def stream_in_batch(
        self, segments: Sequence[Segment], config: GenerationConfig, cancel: threading.Event
    ) -> Iterator[Delta]:
        """As `stream`, but more answers may be begun before this one has ended, all in one thread.

        Whichever of them is asked for its next piece makes all take a token. Each has its own configuration and its
        own `cancel`, which ends it and none of the others.
        """
        ...


@runtime_checkable
class PromptIds(Protocol):
    """A model that tells the ids of a prompt. Optional: `/raw` shows them."""

    def prompt_ids(self, segments: Sequence[Segment]) -> Sequence[int]:
        """Return the ids that the model is given for the prompt, special ones included."""
        ...


@runtime_checkable
class AnswerIds(PromptIds, Protocol):
    """A model that also tells the ids of an answer that was begun. Optional: `/raw` shows them after `/continue`."""

    def answer_ids(self, answer: str) -> Sequence[int]:
        """Return the ids that follow the prompt's where the model continues with `answer`."""
        ...


@runtime_checkable
class PromptParts(PromptIds, Protocol):
    """A model that also tells which control tokens its family adds to a prompt. Optional: `/raw` shows them."""

    def prompt_parts(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return the prompt as the model is given it: its text and, in their places, all its control tokens."""
        ...
