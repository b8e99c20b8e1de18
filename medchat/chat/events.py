"""The events of answering a question, in order; the last one ends the turn."""

from __future__ import annotations

from dataclasses import dataclass

from medchat.api import Finish, GenerationConfig, Notice, Turn


@dataclass(frozen=True, slots=True)
class TurnStats:
    """The cost of one answer. Times in seconds; `first_token_seconds` counts from the question.

    `estimated`: the token counts are estimates.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    first_tokens: int = 1
    estimated: bool = False

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: the tokens after the first piece of text over the time after it.

        `first_tokens` counts those up to it. Of an answer that came in one piece (beam search) all tokens and
        the total time count.
        """
        rest, time_for_rest = (
            self.completion_tokens - self.first_tokens,
            self.seconds - self.first_token_seconds,
        )
        if rest > 0 and time_for_rest > 0:
            return rest / time_for_rest
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """The context of an answer: the decoding settings, the notices shown before it, whether the user edited it."""

    config: GenerationConfig
    notices: tuple[Notice, ...] = ()
    edited: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """A notice about the user's words, before the model runs. `said`: it was already shown while the model
    was loading.
    """

    notice: Notice
    said: bool = False


@dataclass(frozen=True, slots=True)
class AnswerReviewed:
    """A notice about the answer that has just ended."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class QuestionChosen:
    """The typed number or text selected `question`, which is answered."""

    question: str


@dataclass(frozen=True, slots=True)
class HistoryDropped:
    """The model does not see the oldest `turns` turns: there is no room, or the template sends the last `kept`."""

    turns: int
    kept: int = 0
    by_template: bool = False


@dataclass(frozen=True, slots=True)
class AnswerShortened:
    """The context leaves room for `tokens` tokens of answer, fewer than asked for."""

    tokens: int


@dataclass(frozen=True, slots=True)
class SingleTurnTemplate:
    """Sent once per session: the template repeats its block, but the weights were trained on single turns."""

    template: str


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """The next piece of the answer, raw: pass it through a `StreamSanitizer` before showing it."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """The next piece of the model's reasoning, raw: not part of the answer or the history."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerRestarted:
    """The pieces so far were unmarked reasoning: the answer begins now."""


@dataclass(frozen=True, slots=True)
class SettingsRejected:
    """The server rejected these settings (`temperature`) and answers without them. Sent once per session."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopStopped:
    """The model repeated itself without end and was stopped."""


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """The answer is complete (see `turn.finish`) and, where sessions are saved, on disk.

    `reasoning` is what the model wrote before it, `rejected` the settings that a server rejected, `seed` that
    of the sampling, None for greedy decoding or a server's.
    """

    turn: Turn
    stats: TurnStats
    reasoning: str = ""
    rejected: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class OldAnswerKept:
    """A regenerated answer was stopped or failed, and the old one stays."""

    finish: Finish


Event = (
    Advice
    | AnswerReviewed
    | QuestionChosen
    | HistoryDropped
    | AnswerShortened
    | SingleTurnTemplate
    | AnswerPiece
    | ReasoningPiece
    | AnswerRestarted
    | SettingsRejected
    | LoopStopped
    | AnswerFinished
    | OldAnswerKept
)
