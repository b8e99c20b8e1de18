"""An answer's events on the screen: notices first, then the text, then the mark and the remarks."""

from __future__ import annotations

import time

from medchat.api import Finish, Notice
from medchat.chat.events import (
    Advice,
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
)
from medchat.errors import MemoryShortageError
from medchat.medical_safety import ai_mark
from medchat.repl import messages
from medchat.repl.screen import PROMPT, Screen, Tone, untrusted


class AnswerView:
    """Shows one answer. Feed it every event, `idle` while none comes, and `close` at the end."""

    def __init__(self, screen: Screen, context_length: int, *, footer: bool = True) -> None:
        self._screen = screen
        self._context_length = context_length
        self._footer = footer
        self._notices: list[Notice] = []
        self._urgent: list[Notice] = []
        self._reviews: list[Notice] = []
        self._text = ""
        self._looped = False
        self._old_kept: OldAnswerKept | None = None
        self._reasoning_began = 0.0
        self._folded = False
        #: Characters of reasoning and of answer so far.
        self.reasoning_characters = self._characters = 0
        self.text_came = False
        self.answered: AnswerFinished | None = None
        self.error: BaseException | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether the answer was stopped so that there is no new turn."""
        return self.answered is None and self.error is None

    def take(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Advice():
                self._advise(event)
            case AnswerReviewed(notice=notice):
                self._reviews.append(notice)
            case QuestionChosen(question=question):
                self._screen.show(f"{PROMPT} " + untrusted(question))
            case ReasoningPiece(text=text):
                self._reasoning_began = self._reasoning_began or time.monotonic()
                self.reasoning_characters += len(text)
            case AnswerRestarted():
                self._screen.end_answer()
                self._screen.tell(messages.reasoned_unmarked(self._characters))
                self._characters, self.text_came, self._folded = 0, False, True
                self._text = ""
            case AnswerPiece(text=text):
                self._show_notices()
                self._fold_reasoning()
                self.text_came = True
                self._characters += len(text)
                self._text += text
                self._screen.piece(text)
            case HistoryDropped():
                self._remark(messages.dropped(event))
            case AnswerShortened():
                self._remark(messages.shortened(event))
            case SingleTurnTemplate():
                self._remark(messages.single_turn(event))
            case SettingsRejected():
                self._remark(messages.rejected(event))
            case LoopStopped():
                self._looped = True
            case AnswerFinished():
                self.answered = event
            case OldAnswerKept():
                self._old_kept = event

    def idle(self) -> None:
        """Nothing came for a moment: the advisers are done and the model is at work."""
        self._show_notices()

    def close(self, error: BaseException | None = None) -> None:
        """End the answer: the mark once, why it ended, and the figures."""
        self.error = error
        self._show_notices()
        self._fold_reasoning()
        self._screen.end_answer()
        if self.text_came or self.answered is not None:
            self._screen.tell(ai_mark())
            self._after_the_answer()
        if error is not None:
            if self._old_kept is not None:
                self._screen.tell(messages.old_kept(self._old_kept), Tone.WARNING)
            elif self.text_came:
                self._screen.tell(messages.ending(Finish.ERROR, 0), Tone.WARNING)
            self._screen.tell(messages.failure(error), Tone.WARNING)
            if isinstance(error, MemoryShortageError):
                self._screen.tell(messages.out_of_memory())
        elif self._old_kept is not None:
            if self._looped:
                self._screen.tell(messages.loop_stopped(), Tone.WARNING)
            self._screen.tell(messages.old_kept(self._old_kept), Tone.WARNING)
        elif self.answered is not None:
            self._conclude(self.answered)

    def _after_the_answer(self) -> None:
        """Say what the answer's review found, and once more what is urgent where the answer drove it off the screen."""
        for notice in self._reviews:
            self._screen.tell(notice.text, Tone.WARNING)
        if self._urgent and self._screen.is_filled_by(self._text):
            for notice in self._urgent:
                self._screen.tell(notice.short or notice.text, Tone.URGENT)

    def _conclude(self, answered: AnswerFinished) -> None:
        stats = answered.stats
        if empty := messages.empty(answered):
            self._screen.tell(empty, Tone.WARNING)
        reason = (
            messages.loop_stopped()
            if self._looped
            else messages.ending(answered.turn.finish, stats.completion_tokens)
        )
        if reason:
            self._screen.tell(reason, Tone.WARNING)
        if self._footer:
            self._screen.tell(messages.footer(stats, self._context_length))

    def _fold_reasoning(self) -> None:
        """Show one line in the place of the reasoning, once it is over."""
        if self.reasoning_characters and not self._folded and self._reasoning_began:
            self._folded = True
            seconds = time.monotonic() - self._reasoning_began
            self._screen.tell(messages.reasoned(self.reasoning_characters, seconds))

    def _advise(self, advice: Advice) -> None:
        notice = advice.notice
        if notice.urgent:  # a life may be at risk: not even the other advisers are waited for
            if not advice.said:
                self._screen.tell(notice.text, Tone.URGENT)
            self._urgent.append(notice)
        else:
            self._notices.append(notice)

    def _remark(self, text: str) -> None:
        self._show_notices()
        self._screen.tell(text)

    def _show_notices(self) -> None:
        for notice in self._notices:
            self._screen.tell(notice.text, Tone.WARNING)
        self._notices.clear()
