"""One question to be answered, and its answer as it comes."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from medchat.api import (
    BatchStreamingModel,
    ChatModel,
    ContinuingModel,
    Conversation,
    Delta,
    Finish,
    GenerationConfig,
    Segment,
    Turn,
)
from medchat.chat.events import TurnStats
from medchat.chat.text_checks import repeats_without_end
from medchat.errors import UsageError
from medchat.language import say
from medchat.templates import Fitted


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question to answer after `before`, where the model streams in batches as one of several (`in_batch`).

    `instead_of`: the number of last turns to replace, which stay as another branch. `begun` is the answer so
    far, to be continued. `keeps_old`: an answer that was stopped or failed replaces nothing. `insist` asks
    even if the gate refuses.
    """

    question: str
    config: GenerationConfig
    before: Conversation
    instead_of: int = 0
    begun: str = ""
    keeps_old: bool = False
    insist: bool = False
    in_batch: bool = False


#: The range of drawn seeds: short enough to type, and small enough for any generator.
_SEEDS = 1 << 31


def with_seed(config: GenerationConfig) -> GenerationConfig:
    """Return `config` with a drawn seed if it samples and has none, so that the seed can be recorded.

    Settings left to a server (`config.unset`) stay unset.
    """
    if config.seed is not None or not config.samples or "seed" in config.unset:
        return config
    return replace(config, seed=secrets.randbelow(_SEEDS))


def begun_by(
    model: ChatModel,
    request: AnswerRequest,
    fitted: Fitted,
    config: GenerationConfig,
    cancel: threading.Event,
) -> Iterator[Delta]:
    """Start the model's answer, or continue it. Raises UsageError for a model that cannot continue."""
    if not request.begun:
        if request.in_batch and isinstance(model, BatchStreamingModel):
            return model.stream_in_batch(fitted.segments, config, cancel)
        return model.stream(fitted.segments, config, cancel)
    if not isinstance(model, ContinuingModel):
        raise UsageError(
            say("这个模型不能续写未完成的回答", "this model cannot go on with an answer that it began"),
            say(
                "调高 max-new-tokens 后用 /重答，或直接请它继续",
                "raise max-new-tokens and /regen, or ask it to go on",
            ),
        )
    return model.go_on(fitted.segments, request.begun, config, cancel)


@dataclass(frozen=True, slots=True)
class SentPrompt:
    """What a model was sent: a prompt, and the answer so far if it was to continue one."""

    segments: Sequence[Segment] = ()
    begun: str = ""


@dataclass
class Gathered:
    """An answer in progress. `text` begins with the part that existed before, `begun` characters."""

    started: float
    text: str = ""
    begun: int = 0
    reasoning: str = ""
    last: Delta = Delta()
    first_at: float = 0.0
    first_tokens: int = 0
    looped: bool = False
    abandoned: bool = False

    def add(self, delta: Delta) -> None:
        """Take the next piece."""
        if not self.first_at and (delta.text or delta.completion_tokens):
            self.first_at = time.perf_counter()
            self.first_tokens = delta.completion_tokens
        if delta.restarts:
            self.text, self.reasoning = "", self.reasoning + self.text
        self.reasoning += delta.reasoning
        self.text += delta.text
        self.last = delta

    def left_alone(self, question: str) -> Turn | None:
        """Return what has come as a stopped turn, None if nothing has, and ignore later pieces.

        Called from another thread than the one that answers, if the model hangs.
        """
        self.abandoned = True
        return self.turn(question, Finish.CANCELLED) if self.has_come else None

    def stop_loop(self, cancel: threading.Event) -> None:
        """Set `cancel` if the answer repeats itself without end."""
        self.looped = repeats_without_end(self.text)
        if self.looped:
            cancel.set()

    @property
    def has_come(self) -> bool:
        """Whether there is more of the answer than before."""
        return len(self.text) > self.begun

    @property
    def finish(self) -> Finish:
        """Why the answer ended."""
        if self.looped:
            return Finish.CANCELLED
        return self.last.finish or Finish.STOP

    def turn(self, question: str, finish: Finish) -> Turn:
        """Return the answer as a turn."""
        return Turn(question, self.text, finish)

    def stats(self) -> TurnStats:
        """Return the cost so far."""
        now = time.perf_counter()
        return TurnStats(
            prompt_tokens=self.last.prompt_tokens,
            reused_tokens=self.last.reused_tokens,
            completion_tokens=self.last.completion_tokens,
            first_token_seconds=(self.first_at or now) - self.started,
            seconds=now - self.started,
            first_tokens=self.first_tokens,
            estimated=self.last.estimated,
        )
