"""The types that cross the border between the core and a backbone plugin.

Standard library only: importing this module never imports torch, so a plugin's own module can
define its `Backbone` cheaply and import torch inside `load`. Everything here is frozen; what a
plugin receives it cannot change behind the core's back.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from medchat.errors import UsageError
from medchat.language import say

#: What a plugin module states as `medchat_api_version`. Raised when something here changes incompatibly.
API_VERSION = 1


# ---------------------------------------------------------------- conversation


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # an end token
    LENGTH = "length"  # max_new_tokens or the context was used up
    CANCELLED = "cancelled"  # the user stopped it; the text is what had come
    ERROR = "error"  # the backbone failed part-way; the text is what had come


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer. Texts are exactly what the user typed and the model wrote."""

    question: str
    answer: str
    finish: Finish = Finish.STOP


@dataclass(frozen=True, slots=True)
class Conversation:
    """What has been said so far. Immutable: `with_turn` returns a new one."""

    turns: tuple[Turn, ...] = ()
    system: str = ""

    def with_turn(self, turn: Turn) -> Conversation:
        """Return this conversation with `turn` at its end."""
        return replace(self, turns=(*self.turns, turn))

    def without_last(self, count: int = 1) -> Conversation:
        """Return this conversation without its last `count` turns."""
        return replace(self, turns=self.turns[: max(0, len(self.turns) - count)])


@dataclass(frozen=True, slots=True)
class Notice:
    """Something told to the user before an answer. Plugins may add notices, never remove one.

    `text` is in the interface language; `urgent` ones concern a life at risk and are shown first.
    """

    text: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A command typed at the prompt as `/name` or `/zh_name`.

    `run` takes the conversation and the words after the command and returns the text to show.
    """

    name: str
    zh_name: str
    summary: Mapping[str, str]
    run: Callable[[Conversation, str], str]


# ---------------------------------------------------------------- prompts


@dataclass(frozen=True, slots=True)
class Control:
    """A special token, named by its piece (`[gMASK]`, `<sop>`, `</s>`). Becomes exactly one id."""

    token: str


@dataclass(frozen=True, slots=True)
class Text:
    """Ordinary text. Encoded with special-token parsing off, whatever it holds."""

    text: str


Segment = Control | Text


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """A vocabulary's special tokens: the pieces that a `Control` may name, and which has which role.

    `roles` maps `bos_token`, `eos_token` (and `unk_token`, `pad_token`) to a token, where there is one.
    """

    tokens: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)


class PromptTemplate(Protocol):
    """Turns a conversation into segments. Never into one string: see docs/decisions."""

    @property
    def name(self) -> str:
        """The name shown to the user and stored with each session."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer besides the model's own end tokens (most templates: none)."""
        ...

    @property
    def multi_turn(self) -> bool:
        """Whether the weights were trained on several turns in this form."""
        ...

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for `question` after `turns`, oldest first."""
        ...


# ---------------------------------------------------------------- options


@dataclass(frozen=True, slots=True)
class Range:
    """The valid values of one generation setting, both ends included unless `open_low`."""

    low: float
    high: float
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


GENERATION_RANGES: Mapping[str, Range] = {
    "max_new_tokens": Range(1, 32768),
    "temperature": Range(0.0, 2.0, open_low=True),
    "top_p": Range(0.0, 1.0, open_low=True),
    "top_k": Range(0, 1_000_000),
    "num_beams": Range(1, 16),
    "repetition_penalty": Range(0.0, 2.0, open_low=True),
    "seed": Range(0, 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How an answer is decoded. Validated on construction; raises UsageError naming the valid range.

    `num_beams` above 1 is beam search without sampling (length penalty 1, no early stopping);
    `greedy` never samples. `top_k` 0 is off. `seed` None draws a fresh one each answer. `stop` are texts
    that end an answer besides the model's own end tokens; they are not part of it.
    """

    max_new_tokens: int = 512
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    seed: int | None = None
    greedy: bool = False
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in GENERATION_RANGES.items():
            value = getattr(self, name)
            if value is None and name == "seed":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value not in allowed:
                flag = "--" + name.replace("_", "-")
                raise UsageError(
                    say(f"{flag} 的值 {value} 超出范围", f"{flag} {value} is out of range"),
                    say(f"有效范围是 {allowed}", f"the valid range is {allowed}"),
                )

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn at random."""
        return not self.greedy and self.num_beams == 1


DEVICES_HELP = "auto|cpu|cuda[:N]|mps"
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZE = ("none", "int8", "int4")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how. `extra` holds a backbone's own keys (ChatGLM: `rule`).

    `address` is what `Backbone.address` made of `--model`, "" where the model is the folder `model`.
    """

    model: Path
    adapters: tuple[Path, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = "none"
    offline: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @property
    def place(self) -> str:
        """What `--model` takes to load this again: the address, or the folder as it was given."""
        return self.address or str(self.model)


# ---------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer. Texts joined in order are the answer; no text is ever taken back.

    `finish` is set on the last delta only, together with the final counts. `prompt_tokens` counts
    the whole prompt; `reused_tokens` those of it whose keys and values were kept from the turn before.
    `estimated` says that the counts are guesses: whoever computed the answer did not tell them.
    """

    text: str = ""
    completion_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    finish: Finish | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer from batch generation. `estimated` is as in `Delta`."""

    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a checkpoint folder is, learned without loading its weights. `models show` prints it."""

    backbone: str
    family: str
    path: Path
    vocab_size: int
    layers: int
    hidden_size: int
    parameters: int
    dtypes: tuple[str, ...]
    weight_bytes: int
    context_length: int
    template: str
    quantization: str = "none"
    notes: tuple[str, ...] = ()

    def memory(self, bytes_per_parameter: float) -> int:
        """Return the bytes that the weights alone need at that width."""
        return int(self.parameters * bytes_per_parameter)


@runtime_checkable
class ChatModel(Protocol):
    """A loaded model. One caller at a time; `cancel` may be set from any thread."""

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
        """Answer several prompts at once, in their order. Each equals what it would be alone."""
        ...

    def score(self, segments: Sequence[Segment], answer: str) -> tuple[float, ...]:
        """Return the natural log-probability of each token of `answer` and of the end token after it."""
        ...

    def count(self, segments: Sequence[Segment]) -> int:
        """Return the length of the prompt in tokens."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what is loaded, for `--json`, `/stats` and logs: at least `backbone`, `model`, `dtype`, `device`."""
        ...

    def close(self) -> None:
        """Give the memory back. The model must not be used afterwards."""
        ...


# ---------------------------------------------------------------- fine-tuning


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a conversation so far, and the answer to learn."""

    question: str
    answer: str
    turns: tuple[Turn, ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class SFTOptions:
    """A fine-tuning run. `method` is one of the backbone's recipes."""

    model: Path
    output: Path
    method: str = "full"
    learning_rate: float = 5e-5
    epochs: float = 3.0
    batch_size: int = 16
    micro_batch_size: int = 8
    max_length: int = 256
    warmup_ratio: float = 0.1
    scheduler: str = "linear"
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-8
    logging_steps: int = 10
    seed: int = 2023
    collator: str = "default"
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SFTProgress:
    """One logged step. `step` counts optimizer steps from 1; `seconds` since training began."""

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True)
class SFTReport:
    """What a run did. `output` loads as `--model` (or `--adapter`)."""

    output: Path
    steps: int
    examples: int
    label_tokens: int
    first_loss: float
    last_loss: float
    seconds: float


class SFTRecipe(Protocol):
    """One way of fine-tuning one backbone."""

    @property
    def method(self) -> str:
        """The name `--method` takes."""
        ...

    def run(
        self,
        examples: Sequence[Example],
        options: SFTOptions,
        on_progress: Callable[[SFTProgress], None],
        cancel: threading.Event,
    ) -> SFTReport:
        """Train and write the result to `options.output`, atomically. Returns what was done."""
        ...


# ---------------------------------------------------------------- backbones


HUB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True)
class KnownFile:
    """One file of published weights. `size` in bytes and `sha256` are 0 and "" where nobody stated them."""

    name: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class KnownWeights:
    """Published weights that a backbone can load. `models list|show|pull|verify` work from this.

    `source` is a page for people; one on the hub is also where `pull` takes them from, at `revision`.
    `size` is the whole download in bytes, about; `files` are those whose facts were published, not
    necessarily all. An adapter's `fits` are the names of the bases it was trained on. `by_hand` are the
    links where a person must fetch the weights. `modelscope` is their OWNER/NAME there. `note` is a
    sentence in each language, e.g. {"zh": "…", "en": "…"}.
    """

    name: str
    title: str
    source: str
    licence: str
    template: str
    kind: Literal["base", "adapter"] = "base"
    revision: str = "main"
    size: int = 0
    files: tuple[KnownFile, ...] = ()
    fits: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    modelscope: str = ""
    note: Mapping[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """OWNER/NAME on the hub, "" for weights that are not there."""
        return self.source.removeprefix(HUB) if self.source.startswith(HUB) else ""


class Backbone(ABC):
    """A model family. Subclass it, return an instance from the `medchat_backbones` hook."""

    #: Equals the entry-point name; what `--backbone` takes.
    name: str
    #: One sentence in each language, e.g. {"zh": "…", "en": "…"}.
    summary: Mapping[str, str]
    known_weights: tuple[KnownWeights, ...] = ()
    #: Decoding defaults of the published demo; flags and configuration go over them.
    generation: GenerationConfig = GenerationConfig()
    #: Keys of `LoadOptions.extra` this backbone understands, with the values each may take.
    load_keys: Mapping[str, tuple[str, ...]] = {}

    @abstractmethod
    def load(self, options: LoadOptions) -> ChatModel:
        """Load a checkpoint. Raises CheckpointError (missing, damaged, not matching) or MemoryShortageError."""

    @abstractmethod
    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template the checkpoint was trained with. Reads small files only, never weights."""

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the names of the templates that these very weights are known to have been trained on.

        Empty, the default, where that is not known: then `template` is a good guess and any other
        choice is as good. Where it is known the user is told of a `--template` that is not among them.
        """
        return ()

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the special tokens of the vocabulary that `load` would use. Asked for a Jinja template.

        What such a template writes is held against them: a special token becomes a `Control`, all else
        is text. Without any, the default, everything is text. Raises CheckpointError.
        """
        return SpecialTokens()

    @abstractmethod
    def inspect(self, path: Path) -> ModelCard | None:
        """Say what the folder is, or None if it is not of this family. Reads headers only, no torch."""

    @abstractmethod
    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a miniature random checkpoint in the real layout, its vocabulary made from `corpus`."""

    def address(self, value: str) -> str | None:
        """Return what `--model` names where that is no folder (an endpoint), in its one proper form.

        None, the default, says that models are folders. `value` is "" where none was given. Touches no
        network. Raises UsageError for an address that cannot be used.
        """
        return None

    def notices(self, options: LoadOptions) -> tuple[str, ...]:
        """Return what the user must have read before the first question: shown at every start.

        Nothing is loaded yet and nothing may be; most backbones have nothing to say.
        """
        return ()

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        """The fine-tuning methods by name. Empty where there are none."""
        return {}
