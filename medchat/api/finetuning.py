"""Supervised fine-tuning: the data, the settings, what a run says while it runs, and the recipe.

`medchat sft` reads the data and shows what happens; a backbone's recipes do the rest:

    options = recipe.resolve_options(options)  # what was left open, as it is for this model here
    survey = recipe.survey(data, options)      # tokenizer only: lengths, truncation, a preview
    memory = recipe.estimate(options, survey)  # configuration and headers only: does it fit?
    report = recipe.run(data, options, watch)  # train, save, read back
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from medchat.api.conversation import Turn
from medchat.api.prompts import PromptTemplate
from medchat.api.sft_options import SFTOptions


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a conversation so far, and the answer to learn.

    `input` is the alpaca field of that name, `where` the record's place as `file:line`. `dialogue` is the
    whole conversation as one text where the data holds it so (literature), for weights trained on that.
    """

    question: str
    answer: str
    turns: tuple[Turn, ...] = ()
    system: str = ""
    input: str = ""
    dialogue: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class SFTData:
    """What a run learns from, and what it is held against while it learns.

    `template` None is the backbone's own for the model. `unused_fields` counts, by field, the records in which
    the data holds something that nothing is learned from; a recipe puts it on record.
    """

    train: Sequence[Example]
    held_out: Sequence[Example] = ()
    template: PromptTemplate | None = None
    unused_fields: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreviewPiece:
    """A stretch of the first training example as the model sees it. `learned`: the loss is taken over it."""

    text: str
    learned: bool
    special: bool = False


@dataclass(frozen=True, slots=True)
class SFTSurvey:
    """What the data becomes under the model's tokenizer. Lengths are in tokens.

    `lengths` are of the whole records, uncut; the counts say how many had to lose what to fit
    `max_length`: oldest turns, the beginning of the question, the end of the answer (its end token
    stays). `unlabelled` are the places of records that keep no answer at all and are left out.
    """

    template: str
    records: int
    max_length: int
    lengths: tuple[int, ...]
    lost_turns: int = 0
    cut_questions: int = 0
    cut_answers: int = 0
    unlabelled: tuple[str, ...] = ()
    tokens: int = 0
    label_tokens: int = 0
    longest: int = 0
    preview: tuple[PreviewPiece, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The peak a run would reach on `device`, in bytes by part, and what that device has free.

    Parts: `weights`, `gradients`, `optimizer`, `activations`, `logits`, `runtime`. `alternatives` maps a
    setting, as typed, to its total; `nearest` are the fewest changes of options that would fit, empty if this
    fits, None if nothing does. `trainable` of the `parameters` would be trained. `cards` maps sizes of
    graphics cards in GB to such changes for each.
    """

    parts: Mapping[str, int]
    device: str
    available: int
    alternatives: Mapping[str, int] = field(default_factory=dict)
    nearest: Mapping[str, Any] | None = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parameters: int = 0
    trainable: int = 0
    cards: Mapping[int, Mapping[str, Any] | None] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The peak in bytes."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the device has that much."""
        return self.total <= self.available


@dataclass(frozen=True, slots=True)
class DiskEstimate:
    """The most that a run has on the disk at once, in bytes by part, and what is free at `place`.

    Parts: `checkpoints` (those kept), `best`, `result`, `writing` (a checkpoint that is being written).
    """

    parts: Mapping[str, int]
    place: str
    available: int

    @property
    def total(self) -> int:
        """The peak in bytes."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is that much room."""
        return self.total <= self.available


@dataclass(frozen=True, slots=True)
class SFTProgress:
    """One logged step. `step` counts optimizer steps from 1; `seconds` since training began."""

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    epoch: float = 0.0
    grad_norm: float | None = None


@dataclass(frozen=True, slots=True)
class SFTEvaluation:
    """The held-out loss after `step` (0: before training), a mean per label token; `best` if none was lower."""

    step: int
    loss: float
    perplexity: float
    best: bool


@dataclass(frozen=True, slots=True)
class SFTSaved:
    """A complete checkpoint of `step` is in `folder`."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class SFTStatus:
    """What a run does from now on where it takes no steps (loading, answering), in the interface language.

    Told as soon as the output folder is open: whoever watches may then keep there what `resume` needs.
    """

    text: str


@dataclass(frozen=True, slots=True)
class SFTNote:
    """Something the user should know, in the interface language.

    `everywhere`: said by whichever process it comes from, not by the main one alone.
    """

    text: str
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class SFTSample:
    """What the model answers, greedily, to a question: before training and after."""

    question: str
    reference: str
    before: str
    after: str


SFTEvent = SFTStatus | SFTProgress | SFTEvaluation | SFTSaved | SFTNote


@dataclass(frozen=True, slots=True)
class SFTReport:
    """What a run did. `output` loads as `--model` (`kind` "model") or `--adapter` (`kind` "adapter").

    Losses are means per label token, `loss_before` (before training) and `best_loss` over what was held
    out. `peak_bytes` is the device's peak, 0 where it cannot be measured.
    """

    output: Path
    steps: int
    examples: int
    label_tokens: int
    first_loss: float
    last_loss: float
    seconds: float
    kind: Literal["model", "adapter"] = "model"
    template: str = ""
    tokens: int = 0
    held_out: int = 0
    best_step: int = 0
    best_loss: float | None = None
    loss_before: float | None = None
    stopped_early: bool = False
    resumed_from: int = 0
    trainable_parameters: int = 0
    parameters: int = 0
    peak_bytes: int = 0
    processes: int = 1
    samples: tuple[SFTSample, ...] = ()


class SFTWatcher(Protocol):
    """Who watches a run. All calls come from the main process of a distributed run."""

    @property
    def cancel(self) -> threading.Event:
        """Set to stop after the current step; the run then saves a checkpoint and raises MedchatError."""
        ...

    def on_event(self, event: SFTEvent) -> None:
        """Handle an SFTStatus, SFTProgress, SFTEvaluation, SFTSaved or SFTNote."""
        ...

    def finish(self, folder: Path, report: SFTReport) -> None:
        """Add files (model card, report) to the finished output before its manifest is written."""
        ...


class SFTRecipe(ABC):
    """One way of fine-tuning one backbone."""

    #: The name `--method` takes.
    method: str
    #: Fields of `SFTOptions` whose defaults differ for this method.
    defaults: ClassVar[Mapping[str, Any]] = {}
    #: What `--collator` takes.
    collators: ClassVar[tuple[str, ...]] = ("default",)

    def resolve_options(self, options: SFTOptions) -> SFTOptions:
        """Return the options with what was left open (`precision` auto, a rule) as it is for this model here.

        What is recorded of a run, and what a resumed one is held to, is then what it did. Reads small files only.
        """
        return options

    def template(self, options: SFTOptions) -> PromptTemplate | None:
        """Return the template to train in where none was chosen (`SFTData.template`). None: unknown."""
        return None

    def survey(self, data: SFTData, options: SFTOptions) -> SFTSurvey | None:
        """Tokenise the data and say what becomes of it. Needs no weights in the model's folder. None: unknown.

        Raises DataError if more than one record in a hundred would keep no label, unless
        `options.allow_truncation`.
        """
        return None

    def estimate(self, options: SFTOptions, survey: SFTSurvey | None) -> MemoryEstimate | None:
        """Say how much memory the run would take. Reads small files and headers only. None: unknown."""
        return None

    def disk(self, options: SFTOptions, survey: SFTSurvey | None) -> DiskEstimate | None:
        """Say how much room the run would take on the disk. Reads small files and headers only. None: unknown."""
        return None

    @abstractmethod
    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatcher) -> SFTReport:
        """Train and write the result to `options.output`, its manifest last. Returns what was done."""
