"""The chat engine: one conversation with one model, as a stream of events.

It handles conversations, prompts and token budgets, and is independent of the terminal, which shows the
events, of SQLite (see `Recorder`) and of any model (see `ChatModel`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

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
from medchat.chat.collaborators import (
    Adviser,
    Listener,
    NoRecorder,
    QuestionGate,
    Recorder,
    Reviewer,
    rewritten,
)
from medchat.chat.events import (
    Advice,
    AnswerContext,
    AnswerFinished,
    AnswerPiece,
    AnswerRestarted,
    AnswerReviewed,
    AnswerShortened,
    Event,
    HistoryDropped,
    LoopStopped,
    OldAnswerKept,
    QuestionChosen,
    ReasoningPiece,
    SettingsRejected,
    SingleTurnTemplate,
    TurnStats,
)
from medchat.chat.gathered import AnswerRequest, Gathered, SentPrompt, begun_by, with_seed
from medchat.chat.text_checks import MAX_QUESTION_BYTES, check_question
from medchat.errors import Interruption, UsageError
from medchat.language import say
from medchat.templates import Fitted, fit


@dataclass
class ChatSession:
    """One conversation. Call `ask` and iterate; `conversation` holds the turns so far.

    `advisers` check the user's words before the model runs; `reviewers` check the answer if an adviser gave
    an urgent notice with a key; `listeners` are called with each turn once it is recorded. `remember_history`
    False sends each question alone. `guard_loops` stops an answer that repeats itself without end (chat
    only). `gate` may refuse a question that the advisers have seen. `notices_shown`: the keys of notices that
    were shown in full (later ones are shortened); `said_early`: notices that were shown while the model was
    loading.
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
    last_prompt: SentPrompt = field(default_factory=SentPrompt)
    dropped: int = 0
    notices_shown: set[str] = field(default_factory=set)
    said_early: set[str] = field(default_factory=set)
    _under_way: tuple[AnswerRequest, Gathered, AnswerContext] | None = None
    _told_single_turn: bool = False
    _told_left_out: bool = False
    _known_rejected: set[str] = field(default_factory=set)
    _attempt: int = 0

    def ask(
        self, question: str, cancel: threading.Event, *, insist: bool = False, in_batch: bool = False
    ) -> Iterator[Event]:
        """Answer `question`, yielding events; the last one is `AnswerFinished` unless nothing came before `cancel`.

        `in_batch`: others ask the model meanwhile, in the same thread (`BatchStreamingModel`).
        The turn is recorded before `AnswerFinished` is yielded. If the model fails part-way, what had come is recorded
        with Finish.ERROR and the error is passed on; with Finish.CANCELLED if the program is asked to end.
        """
        check_question(question, self.max_question_bytes)
        self._attempt = 0
        meant = self.gate.meant(question) if self.gate else question
        if meant != question:
            yield QuestionChosen(meant)
        request = AnswerRequest(meant, self.config, self.conversation, insist=insist, in_batch=in_batch)
        yield from self.answer(request, cancel)

    def regenerate(self, cancel: threading.Event) -> Iterator[Event]:
        """Answer the last question again; the old turn stays as another branch once the new answer has ended.

        One that was stopped or failed replaces nothing: `OldAnswerKept` is the end. Raises UsageError without a turn.
        """
        if not self.conversation.turns:
            raise UsageError(
                say("还没有可以重答的问题", "there is no question to answer again"),
                say("先问一个问题", "ask one first"),
            )
        self._attempt += 1
        config = self.config
        if config.seed is not None:  # the same seed would give the same answer
            config = replace(config, seed=(config.seed + self._attempt) % (1 << 63))
        before, question = self.conversation.without_last(), self.conversation.turns[-1].question
        request = AnswerRequest(question, config, before, instead_of=1, keeps_old=True, insist=True)
        yield from self.answer(request, cancel)

    def use(
        self, model: ChatModel, template: PromptTemplate, config: GenerationConfig, gate: QuestionGate | None
    ) -> None:
        """Continue the conversation with another model, template or configuration."""
        self.model, self.template, self.config, self.gate = model, template, config, gate
        self._told_single_turn = self._told_left_out = False
        self._known_rejected.clear()
        self.dropped = 0

    def set_system(self, text: str) -> None:
        """Change the system text, from the next answer on; "" is none."""
        self.conversation = replace(self.conversation, system=text)

    def undo(self, count: int = 1) -> tuple[Turn, ...]:
        """Undo the last `count` turns and return them. Raises UsageError if there are not that many."""
        if not 1 <= count <= len(self.conversation.turns):
            have = len(self.conversation.turns)
            raise UsageError(
                say(f"当前会话有 {have} 轮，无法撤销 {count} 轮", f"cannot undo {count} of {have} turns"),
                say("查看已有各轮：/历史", "list them: /history"),
            )
        taken = self.conversation.turns[-count:]
        self.recorder.undo(count)
        self.conversation = self.conversation.without_last(count)
        return taken

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Replace every question and answer with `change(text)`, here and in the recorder."""
        turns = tuple(rewritten(turn, change) for turn in self.conversation.turns)
        self.conversation = replace(self.conversation, turns=turns, system=change(self.conversation.system))
        self.last_reasoning = change(self.last_reasoning)
        self.last_prompt = SentPrompt()
        self.recorder.rewrite(change)

    def fitted(self, question: str, *, before: Conversation | None = None) -> Fitted:
        """Return the prompt as it would be sent: without as many oldest turns as needed to fit."""
        conversation = self._remembered(self.conversation if before is None else before)
        reserve = min(self.config.max_new_tokens, self.model.context_length // 4)
        budget = self.model.context_length - max(1, reserve)
        return fit(self.template, conversation, question, self.model.count, budget)

    def _remembered(self, conversation: Conversation) -> Conversation:
        """Return the turns to send: none without an answer, as many servers reject empty messages."""
        turns = conversation.turns if self.remember_history else ()
        return replace(conversation, turns=tuple(turn for turn in turns if turn.answer.strip()))

    def _advise(self, before: Conversation, question: str, *, insist: bool) -> Iterator[Advice]:
        """Yield advice on the user's words; raise UsageError if the gate refuses them."""
        for adviser in self.advisers:
            for notice in adviser(before, question):
                due = self._shortened(notice)
                yield Advice(due, said=due.text in self.said_early)
                self.said_early.discard(due.text)
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

    def answer(self, request: AnswerRequest, cancel: threading.Event) -> Iterator[Event]:
        """Answer as `request` says, yielding events; see `ask`."""
        question, before = request.question, request.before
        gathered = Gathered(time.perf_counter(), request.begun, len(request.begun))
        notices: list[Notice] = []
        for event in self._advise(before, question, insist=request.insist):
            notices.append(event.notice)
            yield event
        flagged = any(notice.urgent and notice.key for notice in notices)
        fitted = self.fitted(question, before=before)
        self.last_prompt = SentPrompt(fitted.segments, request.begun)
        yield from self._remarks(before, fitted, request.config)
        config = self._within(fitted, request.config)
        context = AnswerContext(config, tuple(notices))
        self._under_way = request, gathered, context
        try:
            for delta in begun_by(self.model, request, fitted, config, cancel):
                gathered.add(delta)
                yield from self._shown(delta)
                if delta.text and self.guard_loops and not gathered.looped:
                    gathered.stop_loop(cancel)
        except (Exception, Interruption) as error:
            if gathered.abandoned:
                return
            finish = Finish.ERROR if isinstance(error, Exception) else Finish.CANCELLED
            if request.keeps_old:
                yield OldAnswerKept(finish)
            elif gathered.has_come:
                self._keep(gathered.turn(question, finish), gathered.stats(), context, request)
            yield from self._review(question, gathered.text, flagged)
            raise
        finally:
            self.last_reasoning, self._under_way = gathered.reasoning, None
        if gathered.abandoned:
            return
        yield from self._review(question, gathered.text, flagged)
        if gathered.looped:
            yield LoopStopped()
        turn, stats = gathered.turn(question, gathered.finish), gathered.stats()
        if request.keeps_old and turn.finish in (Finish.CANCELLED, Finish.ERROR):
            yield OldAnswerKept(turn.finish)
            return
        if turn.finish is Finish.CANCELLED and not gathered.has_come:
            return
        self._keep(turn, stats, context, request)
        yield AnswerFinished(turn, stats, gathered.reasoning, gathered.last.rejected, config.seed)

    def leave_alone(self) -> None:
        """Record what has come of the current answer, whose model hangs. Called from another thread."""
        if self._under_way is not None:
            request, gathered, context = self._under_way
            turn = gathered.left_alone(request.question)
            if turn is not None and not request.keeps_old:
                self._keep(turn, gathered.stats(), context, request)

    def _within(self, fitted: Fitted, config: GenerationConfig) -> GenerationConfig:
        """Return the configuration with a seed, the budget that the prompt leaves and the template's stop texts."""
        room = max(1, self.model.context_length - fitted.tokens)
        stop = (*config.stop, *self.template.stop)
        return replace(with_seed(config), max_new_tokens=min(config.max_new_tokens, room), stop=stop)

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
        remembered = len(self._remembered(before).turns)
        if fitted.dropped > self.dropped and not (by_template and self._told_left_out):
            self._told_left_out = self._told_left_out or by_template
            yield HistoryDropped(fitted.dropped, remembered - fitted.dropped, by_template)
        self.dropped = fitted.dropped
        room = self.model.context_length - fitted.tokens
        if room < config.max_new_tokens:
            yield AnswerShortened(room)
        several = remembered > fitted.dropped
        if several and not self.template.multi_turn and not self._told_single_turn:
            self._told_single_turn = True
            yield SingleTurnTemplate(self.template.name)

    def _keep(self, turn: Turn, stats: TurnStats, context: AnswerContext, request: AnswerRequest) -> None:
        self.conversation = request.before.with_turn(turn)
        self.last_stats = stats
        if request.begun:
            self.recorder.extend(turn, stats, context)
        else:
            self.recorder.save(turn, stats, context, instead_of=request.instead_of)
        self.tell_listeners(turn)

    def tell_listeners(self, turn: Turn) -> None:
        """Call the listeners with the recorded `turn`."""
        for listener in self.listeners:
            listener(self.conversation, turn)
