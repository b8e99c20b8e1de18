"""What happens while a question is answered, in the order in which it happens; the last event ends the turn."""

from __future__ import annotations

from dataclasses import dataclass

from medchat.api import Finish, GenerationConfig, Notice, Turn


@dataclass(frozen=True, slots=True)
class TurnStats:
    """What one answer cost. Times in seconds; `first_token_seconds` counts from the question.

    `estimated` says that the token counts are guesses.
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

        `first_tokens` counts those up to it. An answer that came in one piece (beam search) counts whole.
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
    """How an answer came about: the decoding settings, the notices shown before it, whether the user rewrote it."""

    config: GenerationConfig
    notices: tuple[Notice, ...] = ()
    edited: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """A notice about the user's words, before the model runs. `said`: it was shown while the model was loading."""

    notice: Notice
    said: bool = False


@dataclass(frozen=True, slots=True)
class AnswerReviewed:
    """A notice about the answer that has just ended."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class QuestionChosen:
    """What was typed stands for `question`, which is answered."""

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
    """Said once a session: the template repeats its block, but the weights saw single turns."""

    template: str


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """The next piece of the answer, raw: whoever shows it feeds it to a `StreamSanitizer` first."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """The next piece of what the model writes before its answer, raw: no part of the answer or the history."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerRestarted:
    """The pieces up to here were reasoning, which the model had not marked: the answer begins now."""


@dataclass(frozen=True, slots=True)
class SettingsRejected:
    """The server did not take these settings (`temperature`); it answers without them. Said once a session."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopStopped:
    """The model repeated itself without end and was stopped."""


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """The answer is complete (see `turn.finish`) and, where sessions are saved, on disk.

    `reasoning` is what the model wrote before it, `rejected` the settings that a server did not take, `seed`
    the one it was drawn with, None if chance had no part or a server drew.
    """

    turn: Turn
    stats: TurnStats
    reasoning: str = ""
    rejected: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class OldAnswerKept:
    """The question was to be answered again, but the new answer was stopped or failed: nothing changed."""

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
