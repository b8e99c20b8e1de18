"""Interprets the events of an answer, for both `medchat ask` and the chat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import assert_never

from medchat.api import Notice
from medchat.chat import events
from medchat.repl import messages


class AnswerEvents(ABC):
    """Handles the events of one answer and accumulates its text; subclasses implement how things are shown."""

    def __init__(self) -> None:
        #: The raw text of the answer so far.
        self.text = ""
        #: Notices about the question, and those about the answer.
        self.notices: list[Notice] = []
        self.reviews: list[Notice] = []
        self.dropped_turns = 0
        self.looped = False
        self.answered: events.AnswerFinished | None = None
        self.old_kept: events.OldAnswerKept | None = None

    def take(self, event: events.Event) -> None:
        """Handle one event: show it, and keep what is needed at the end."""
        match event:
            case events.AnswerPiece(text=text):
                self.text += text
                self.show_piece(text)
            case events.ReasoningPiece(text=text):
                self.show_reasoning(text)
            case events.AnswerRestarted():
                self.show_restart(messages.reasoned_unmarked(len(self.text)))
                self.text = ""
            case events.Advice():
                self.notices.append(event.notice)
                self.show_advice(event)
            case events.AnswerReviewed(notice=notice):
                self.reviews.append(notice)
            case events.QuestionChosen(question=question):
                self.show_question(question)
            case events.LoopStopped():
                self.looped = True
            case events.AnswerFinished():
                self.answered = event
            case events.OldAnswerKept():
                self.old_kept = event
            case events.HistoryDropped(turns=turns):
                self.dropped_turns = turns
                self.show_remark(messages.dropped(event))
            case events.AnswerShortened():
                self.show_remark(messages.shortened(event))
            case events.SingleTurnTemplate():
                self.show_remark(messages.single_turn(event))
            case events.SettingsRejected():
                self.show_remark(messages.rejected(event))
            case _:
                assert_never(event)

    def show_notices_again(self) -> None:
        """Show the notices of the answer's review, and urgent ones again that the answer scrolled off the screen."""
        for notice in self.reviews:
            self.show_notice(notice.text, urgent=False)
        urgent = [notice for notice in self.notices if notice.urgent]
        if urgent and self.fills_screen():
            for notice in urgent:
                self.show_notice(notice.short or notice.text, urgent=True)

    @abstractmethod
    def show_piece(self, text: str) -> None:
        """Show the next piece of the answer, which is raw."""

    @abstractmethod
    def show_reasoning(self, text: str) -> None:
        """Show that the model is reasoning, or its reasoning."""

    @abstractmethod
    def show_restart(self, remark: str) -> None:
        """Separate what was shown so far, which was reasoning, from the answer."""

    @abstractmethod
    def show_advice(self, advice: events.Advice) -> None:
        """Show a notice about the question."""

    @abstractmethod
    def show_question(self, question: str) -> None:
        """Show the question that was chosen by its number."""

    @abstractmethod
    def show_remark(self, text: str) -> None:
        """Show a remark of the program about the answer."""

    @abstractmethod
    def show_notice(self, text: str, *, urgent: bool) -> None:
        """Show a notice after the answer."""

    @abstractmethod
    def fills_screen(self) -> bool:
        """Whether the answer is so long that nothing above it is visible any more."""
