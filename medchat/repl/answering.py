"""Shows an answer's events on the screen: notices, then the text, then the AI mark and the remarks."""

from __future__ import annotations

import time

from medchat.api import Finish, Notice
from medchat.chat.events import Advice, AnswerFinished
from medchat.errors import MemoryShortageError
from medchat.medical_safety import ai_mark
from medchat.repl import messages
from medchat.repl.answer_events import AnswerEvents
from medchat.repl.screen import PROMPT, Screen, Tone, untrusted


class AnswerView(AnswerEvents):
    """Shows one answer. Feed it every event, `idle` while none comes, and `close` at the end."""

    def __init__(self, screen: Screen, context_length: int, *, footer: bool = True) -> None:
        super().__init__()
        self._screen = screen
        self._context_length = context_length
        self._footer = footer
        self._not_shown: list[Notice] = []
        self._reasoning_began = 0.0
        self._folded = False
        self.reasoning_characters = 0
        self.text_came = False
        self.error: BaseException | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether the answer was stopped before there was a new turn."""
        return self.answered is None and self.error is None

    def show_piece(self, text: str) -> None:
        """Show the next piece of the answer, below all notices."""
        self._show_notices()
        self._fold_reasoning()
        self.text_came = True
        self._screen.piece(text)

    def show_reasoning(self, text: str) -> None:
        """Count its length; a single line is shown once it ends."""
        self._reasoning_began = self._reasoning_began or time.monotonic()
        self.reasoning_characters += len(text)

    def show_restart(self, remark: str) -> None:
        """End what looked like the answer."""
        self._screen.end_answer()
        self._screen.tell(remark)
        self.text_came, self._folded = False, True

    def show_question(self, question: str) -> None:
        """Show the question as if it had been typed."""
        self._screen.show(f"{PROMPT} " + untrusted(question))

    def show_advice(self, advice: Advice) -> None:
        """Show urgent advice at once, the rest when all advisers have finished."""
        if not advice.notice.urgent:
            self._not_shown.append(advice.notice)
        elif not advice.said:  # a life may be at risk: do not even wait for the other advisers
            self._screen.tell(advice.notice.text, Tone.URGENT)

    def show_remark(self, text: str) -> None:
        """Show the remark below the notices."""
        self._show_notices()
        self._screen.tell(text)

    def show_notice(self, text: str, *, urgent: bool) -> None:
        """Show a notice below the AI mark."""
        self._screen.tell(text, Tone.URGENT if urgent else Tone.WARNING)

    def fills_screen(self) -> bool:
        """Whether the notices have scrolled off the screen."""
        return self._screen.is_filled_by(self.text)

    def idle(self) -> None:
        """No event came for a moment: the advisers have finished and the model is running."""
        self._show_notices()

    def close(self, error: BaseException | None = None) -> None:
        """End the answer: show the AI mark once, why it ended, and the figures."""
        self.error = error
        self._show_notices()
        self._fold_reasoning()
        self._screen.end_answer()
        if self.text_came or self.answered is not None:
            self._screen.tell(ai_mark())
            self.show_notices_again()
        if error is not None:
            if self.old_kept is not None:
                self._screen.tell(messages.old_kept(self.old_kept), Tone.WARNING)
            elif self.text_came:
                self._screen.tell(messages.ending(Finish.ERROR, 0), Tone.WARNING)
            self._screen.tell(messages.failure(error), Tone.WARNING)
            if isinstance(error, MemoryShortageError):
                self._screen.tell(messages.out_of_memory())
        elif self.old_kept is not None:
            if self.looped:
                self._screen.tell(messages.loop_stopped(), Tone.WARNING)
            self._screen.tell(messages.old_kept(self.old_kept), Tone.WARNING)
        elif self.answered is not None:
            self._conclude(self.answered)

    def _conclude(self, answered: AnswerFinished) -> None:
        stats = answered.stats
        if empty := messages.empty(answered):
            self._screen.tell(empty, Tone.WARNING)
        reason = (
            messages.loop_stopped()
            if self.looped
            else messages.ending(answered.turn.finish, stats.completion_tokens)
        )
        if reason:
            self._screen.tell(reason, Tone.WARNING)
        if self._footer:
            self._screen.tell(messages.footer(stats, self._context_length))

    def _fold_reasoning(self) -> None:
        """Show one line in place of the reasoning, once it ends."""
        if self.reasoning_characters and not self._folded and self._reasoning_began:
            self._folded = True
            seconds = time.monotonic() - self._reasoning_began
            self._screen.tell(messages.reasoned(self.reasoning_characters, seconds))

    def _show_notices(self) -> None:
        for notice in self._not_shown:
            self._screen.tell(notice.text, Tone.WARNING)
        self._not_shown.clear()
