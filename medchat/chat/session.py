"""The chat engine: one conversation with one model, as a stream of events.

It knows conversations, prompts and budgets. It does not know the terminal (who prints the events),
SQLite (the `Recorder` it is given) or any model (the `ChatModel` it is given).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from medchat.api import (
    ChatModel,
    Conversation,
    Delta,
    Finish,
    GenerationConfig,
    Notice,
    PromptTemplate,
    Turn,
)
from medchat.errors import UsageError
from medchat.language import say
from medchat.templates import Fitted, fit

#: A question longer than this (UTF-8 bytes) is refused before it is tokenised. `max_question_bytes` changes it.
MAX_QUESTION_BYTES = 1 << 20

#: Looks at a question on which a red flag fired, its answer, and the keys of what was shown before.
Reviewer = Callable[[str, str, frozenset[str]], Iterable[Notice]]
Adviser = Callable[[Conversation, str], Iterable[Notice]]
Listener = Callable[[Conversation, Turn], None]


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
class Advice:
    """A notice about the user's words, before the model runs."""

    notice: Notice


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
    """The next piece of the answer, raw: whoever shows it passes it through `medchat.sanitize`."""

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

    `reasoning` is what the model wrote before it, `rejected` the settings that a server did not take.
    """

    turn: Turn
    stats: TurnStats
    reasoning: str = ""
    rejected: tuple[str, ...] = ()


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


class QuestionGate(Protocol):
    """Decides which questions a model may be asked that answers few of them (the demo's)."""

    #: The question that was refused last, "" where the last one was admitted.
    refused: str

    def meant(self, typed: str) -> str:
        """Return the question that `typed` stands for."""
        ...

    def admit(self, question: str, *, insist: bool) -> Sequence[Notice]:
        """Return what to say before the answer. Raises UsageError where the model is not to be asked."""
        ...


class Recorder(Protocol):
    """Where turns are kept. Each call returns only when the change is safely stored."""

    def save(self, turn: Turn, stats: TurnStats) -> None:
        """Append one turn."""
        ...

    def replace(self, turn: Turn, stats: TurnStats) -> None:
        """Put a turn in the place of the last one."""
        ...

    def undo(self, count: int) -> None:
        """Take back the last `count` turns."""
        ...

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Put `change(text)` in the place of every text that was stored."""
        ...


class NoRecorder:
    """Keeps nothing (`--no-save`)."""

    def save(self, turn: Turn, stats: TurnStats) -> None:
        """Forget the turn."""

    def replace(self, turn: Turn, stats: TurnStats) -> None:
        """Forget both turns."""

    def undo(self, count: int) -> None:
        """Nothing was kept, so there is nothing to take back."""

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Nothing was kept, so there is nothing to change."""


def rewritten(turn: Turn, change: Callable[[str], str]) -> Turn:
    """Return the turn with `change(text)` in the place of its question and answer."""
    return replace(turn, question=change(turn.question), answer=change(turn.answer))


def check_question(question: str, max_bytes: int = MAX_QUESTION_BYTES) -> None:
    """Refuse (UsageError) a question that is empty, over `max_bytes` of UTF-8, or not Unicode text."""
    if len(question) > max_bytes or (
        4 * len(question) > max_bytes and len(question.encode("utf-8", "replace")) > max_bytes
    ):
        raise UsageError(
            say(f"问题太长：超过 {max_bytes} 字节", f"the question is too long: over {max_bytes} bytes"),
            say(
                "请缩短问题，或调高配置项 max_question_bytes",
                "shorten it, or raise the setting max_question_bytes",
            ),
        )
    if not question.strip():
        raise UsageError(
            say("问题是空的", "the question is empty"),
            say('试试：medchat ask "头痛怎么办？"', 'try: medchat ask "头痛怎么办？"'),
        )
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            say(
                f"问题不是有效的 UTF-8 文本（第 {error.start + 1} 个字符）",
                f"the question is not valid UTF-8 (character {error.start + 1})",
            ),
            say("请用 UTF-8 编码保存后再试", "save it as UTF-8 and try again"),
        ) from None


def repeats_without_end(text: str) -> bool:
    """Whether `text` ends in one unit (1 to 80 characters) repeated at least six times over 240 characters."""
    tail = text[-480:]
    if len(tail) < 240:
        return False
    return any(tail.endswith(tail[-period:] * max(6, -(-240 // period))) for period in range(1, 81))


@dataclass
class ChatSession:
    """One conversation. Call `ask` and iterate; `conversation` holds what has been said since.

    `advisers` look at the user's words before the model does; `reviewers` look at the answer where one of
    them gave an urgent notice with a key; `listeners` are called with each turn once it is recorded.
    `remember_history` False sends each question alone. `guard_loops` stops an answer that repeats itself
    without end (chat only). `gate` may refuse a question, after the advisers have seen it. `notices_shown`
    holds the keys of notices that were shown in full in this conversation: from then on one short line does.
    """

    model: ChatModel
    template: PromptTemplate
    config: GenerationConfig
    conversation: Conversation = Conversation()
    recorder: Recorder = field(default_factory=NoRecorder)
    advisers: Sequence[Adviser] = ()
    reviewers: Sequence[Reviewer] = ()
    listeners: Sequence[Listener] = ()
    remember_history: bool = True
    guard_loops: bool = False
    gate: QuestionGate | None = None
    max_question_bytes: int = MAX_QUESTION_BYTES
    last_stats: TurnStats | None = None
    last_reasoning: str = ""
    dropped: int = 0
    notices_shown: set[str] = field(default_factory=set)
    _told_single_turn: bool = False
    _told_left_out: bool = False
    _known_rejected: set[str] = field(default_factory=set)
    _attempt: int = 0

    def ask(self, question: str, cancel: threading.Event, *, insist: bool = False) -> Iterator[Event]:
        """Answer `question`, yielding events; the last one is `Answered` unless nothing was said before `cancel`.

        The turn is recorded before `Answered` is yielded. If the model fails part-way, what had come
        is recorded with Finish.ERROR and the error goes on to the caller.
        """
        check_question(question, self.max_question_bytes)
        self._attempt = 0
        meant = self.gate.meant(question) if self.gate else question
        if meant != question:
            yield QuestionChosen(meant)
        yield from self._answer(meant, self.config, cancel, replacing=False, insist=insist)

    def regenerate(self, cancel: threading.Event) -> Iterator[Event]:
        """Answer the last question again; the old turn is replaced once the new answer has ended.

        A new answer that was stopped or failed replaces nothing: the last event is `OldAnswerKept`.
        Raises UsageError where nothing was asked yet.
        """
        if not self.conversation.turns:
            raise UsageError(
                say("还没有可以重答的问题", "there is no question to answer again"),
                say("先问一个问题", "ask one first"),
            )
        self._attempt += 1
        config = self.config
        if config.seed is not None:  # the same seed would give the same words
            config = replace(config, seed=(config.seed + self._attempt) % (1 << 63))
        yield from self._answer(
            self.conversation.turns[-1].question, config, cancel, replacing=True, insist=True
        )

    def undo(self, count: int = 1) -> tuple[Turn, ...]:
        """Take back the last `count` turns and return them. Raises UsageError if there are not that many."""
        if not 1 <= count <= len(self.conversation.turns):
            have = len(self.conversation.turns)
            raise UsageError(
                say(f"当前会话有 {have} 轮，无法撤销 {count} 轮", f"cannot undo {count} of {have} turns"),
                say("看看有哪些：/历史", "see what there is: /history"),
            )
        taken = self.conversation.turns[-count:]
        self.recorder.undo(count)
        self.conversation = self.conversation.without_last(count)
        return taken

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Put `change(text)` in the place of everything that was said, here and where it is recorded."""
        turns = tuple(rewritten(turn, change) for turn in self.conversation.turns)
        self.conversation = replace(self.conversation, turns=turns, system=change(self.conversation.system))
        self.last_reasoning = change(self.last_reasoning)
        self.recorder.rewrite(change)

    def fitted(self, question: str, *, before: Conversation | None = None) -> Fitted:
        """Return the prompt as it would be sent: whole oldest turns dropped until it fits."""
        conversation = self.conversation if before is None else before
        if not self.remember_history:
            conversation = replace(conversation, turns=())
        reserve = min(self.config.max_new_tokens, self.model.context_length // 4)
        budget = self.model.context_length - max(1, reserve)
        return fit(self.template, conversation, question, self.model.count, budget)

    def _advise(self, before: Conversation, question: str, *, insist: bool) -> Iterator[Event]:
        """Say what there is to say about the words; raise UsageError where the model is not to be asked."""
        for adviser in self.advisers:
            for notice in adviser(before, question):
                yield Advice(self._shortened(notice))
        if self.gate is not None:
            yield from map(Advice, self.gate.admit(question, insist=insist))

    def _review(self, question: str, answer: str, flagged: bool) -> Iterator[Event]:
        for reviewer in self.reviewers if flagged and answer else ():
            for notice in reviewer(question, answer, frozenset(self.notices_shown)):
                self.notices_shown.add(notice.key)
                yield AnswerReviewed(notice)

    def _shortened(self, notice: Notice) -> Notice:
        """Return the notice in full where its key is new to this conversation, else its short line."""
        if not notice.key or not notice.short:
            return notice
        if notice.key in self.notices_shown:
            return replace(notice, text=notice.short)
        self.notices_shown.add(notice.key)
        return notice

    def _answer(
        self,
        question: str,
        config: GenerationConfig,
        cancel: threading.Event,
        *,
        replacing: bool,
        insist: bool,
    ) -> Iterator[Event]:
        before = self.conversation.without_last() if replacing else self.conversation
        started = time.perf_counter()
        flagged = False
        for event in self._advise(before, question, insist=insist):
            flagged = flagged or _is_red_flag(event)
            yield event
        fitted = self.fitted(question, before=before)
        yield from self._remarks(before, fitted, config)
        room = self.model.context_length - fitted.tokens
        config = replace(
            config,
            max_new_tokens=min(config.max_new_tokens, max(1, room)),
            stop=(*config.stop, *self.template.stop),
        )

        gathered = _Gathered(started)
        try:
            for delta in self.model.stream(fitted.segments, config, cancel):
                gathered.add(delta)
                yield from self._shown(delta)
                if delta.text and self.guard_loops and not gathered.looped:
                    gathered.looped = repeats_without_end(gathered.text)
                    if gathered.looped:
                        cancel.set()
        except Exception:
            if replacing:
                yield OldAnswerKept(Finish.ERROR)
            elif gathered.text:
                self._keep(gathered.turn(question, Finish.ERROR), gathered.stats(), before, replacing=False)
            yield from self._review(question, gathered.text, flagged)
            raise
        finally:
            self.last_reasoning = gathered.reasoning
        yield from self._review(question, gathered.text, flagged)
        if gathered.looped:
            yield LoopStopped()
        turn, stats = gathered.turn(question, gathered.finish), gathered.stats()
        if replacing and turn.finish in (Finish.CANCELLED, Finish.ERROR):
            yield OldAnswerKept(turn.finish)
            return
        if turn.finish is Finish.CANCELLED and not turn.answer:
            return
        self._keep(turn, stats, before, replacing=replacing)
        yield AnswerFinished(turn, stats, gathered.reasoning, gathered.last.rejected)

    def _shown(self, delta: Delta) -> Iterator[Event]:
        news = tuple(name for name in delta.rejected if name not in self._known_rejected)
        if news:
            self._known_rejected.update(news)
            yield SettingsRejected(news)
        if delta.restarts:
            yield AnswerRestarted()
        if delta.reasoning:
            yield ReasoningPiece(delta.reasoning)
        if delta.text:
            yield AnswerPiece(delta.text)

    def _remarks(self, before: Conversation, fitted: Fitted, config: GenerationConfig) -> Iterator[Event]:
        by_template = fitted.dropped == fitted.left_out
        if fitted.dropped > self.dropped and not (by_template and self._told_left_out):
            self._told_left_out = self._told_left_out or by_template
            yield HistoryDropped(fitted.dropped, len(before.turns) - fitted.dropped, by_template)
        self.dropped = fitted.dropped
        room = self.model.context_length - fitted.tokens
        if room < config.max_new_tokens:
            yield AnswerShortened(room)
        several = self.remember_history and len(before.turns) > fitted.dropped
        if several and not self.template.multi_turn and not self._told_single_turn:
            self._told_single_turn = True
            yield SingleTurnTemplate(self.template.name)

    def _keep(self, turn: Turn, stats: TurnStats, before: Conversation, *, replacing: bool) -> None:
        self.conversation = before.with_turn(turn)
        self.last_stats = stats
        if replacing:
            self.recorder.replace(turn, stats)
        else:
            self.recorder.save(turn, stats)
        for listener in self.listeners:
            listener(self.conversation, turn)


def _is_red_flag(event: Event) -> bool:
    return isinstance(event, Advice) and event.notice.urgent and bool(event.notice.key)


@dataclass
class _Gathered:
    """An answer under way."""

    started: float
    text: str = ""
    reasoning: str = ""
    last: Delta = Delta()
    first_at: float = 0.0
    first_tokens: int = 0
    looped: bool = False

    def add(self, delta: Delta) -> None:
        if not self.first_at and (delta.text or delta.completion_tokens):
            self.first_at = time.perf_counter()
            self.first_tokens = delta.completion_tokens
        if delta.restarts:
            self.text, self.reasoning = "", self.reasoning + self.text
        self.reasoning += delta.reasoning
        self.text += delta.text
        self.last = delta

    @property
    def finish(self) -> Finish:
        if self.looped:
            return Finish.CANCELLED
        return self.last.finish or Finish.STOP

    def turn(self, question: str, finish: Finish) -> Turn:
        return Turn(question, self.text, finish)

    def stats(self) -> TurnStats:
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
