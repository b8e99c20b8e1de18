"""From a question to a prompt that fits: rendered and shortened exactly as in a chat.

A question that cannot be sent at all (too long for the limit or the model's context) is refused by
itself; it does not end the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from medchat.api import ChatModel, Conversation, GenerationConfig, PromptTemplate, Segment
from medchat.batch.questions import Question
from medchat.chat.demo_mode import KnownQuestions
from medchat.chat.session import ChatSession
from medchat.chat.text_checks import MAX_QUESTION_BYTES, check_question
from medchat.datafiles.record import QuestionRecord
from medchat.errors import UsageError
from medchat.templates import Fitted, takes_dialogues, with_input


@dataclass(frozen=True, slots=True)
class QuestionPrompt:
    """A question ready to be answered. `tokens` is the prompt's length, `dropped` the turns left out of it."""

    question: Question
    segments: tuple[Segment, ...]
    tokens: int
    dropped: int


@dataclass(frozen=True, slots=True)
class RejectedQuestion:
    """A question that cannot be sent, and why."""

    question: Question
    error: UsageError


@dataclass(frozen=True)
class PromptMaker:
    """Makes prompts for one model with one template.

    `remember_history` False sends each question without what was said before it. A system text of the
    question's own goes over `system`. Where there are `known` questions, any other one is refused.
    """

    model: ChatModel
    template: PromptTemplate
    config: GenerationConfig
    system: str = ""
    remember_history: bool = True
    max_question_bytes: int = MAX_QUESTION_BYTES
    known: KnownQuestions | None = None

    def make(self, question: Question) -> QuestionPrompt | RejectedQuestion:
        """Return the prompt for `question`, whole oldest turns dropped until it fits, or the refusal."""
        try:
            check_question(question.text + question.asked.input, self.max_question_bytes)
            if self.known is not None:
                self.known.check(question.asked.last)
            fitted = self._as_it_stands(question.asked) or self._fitted(question.asked, question.asked.last)
        except UsageError as error:
            return RejectedQuestion(question, error)
        return QuestionPrompt(question, fitted.segments, fitted.tokens, fitted.dropped)

    def _as_it_stands(self, asked: QuestionRecord) -> Fitted | None:
        """A dialogue for weights that were trained on such texts, None where it does not fit or is none."""
        if not (takes_dialogues(self.template) and asked.is_dialogue and self.remember_history):
            return None
        try:
            return self._fitted(replace(asked, turns=()), asked.text)
        except UsageError:
            return None

    def _fitted(self, asked: QuestionRecord, last: str) -> Fitted:
        turns = asked.turns if self.remember_history else ()
        session = ChatSession(
            model=self.model,
            template=with_input(self.template, asked.input),
            config=self.config,
            conversation=Conversation(turns, asked.system or self.system),
        )
        return session.fitted(last)
