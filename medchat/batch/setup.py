"""From what a command has opened to the answering of a plan: prompts, notices, and what each line states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medchat import medical_safety
from medchat.api import ChatModel, Conversation, GenerationConfig, Notice
from medchat.batch.answering import Answering
from medchat.batch.prompts import PromptMaker
from medchat.batch.rows import Provenance, decoding
from medchat.batch.work import WorkPlan
from medchat.chat.demo_mode import KnownQuestions
from medchat.chat.setup import ChatSetup
from medchat.datafiles.record import QuestionRecord


@dataclass(frozen=True)
class BatchSetup:
    """What answers a file of questions. `demo`: what the demo's miniature has learned, where it is that one.

    `force_answer` lets the miniature answer anything else too. `exact`: one question at a time, which each line
    states.
    """

    opening: ChatSetup
    demo: KnownQuestions | None = None
    force_answer: bool = False
    exact: bool = False

    @property
    def provenance(self) -> Provenance:
        """What answers, as far as it is known before the model is loaded."""
        options = self.opening.options
        return Provenance(
            model=options.location,
            backbone=self.opening.backbone.name,
            adapters=tuple(str(adapter) for adapter in options.adapters),
            template=self.opening.template.name,
            options=options.extra,
            decoding=decoding(self.opening.generation) | ({"exact": True} if self.exact else {}),
        )

    @property
    def config(self) -> GenerationConfig:
        """How answers are decoded: the template's stop texts are among those that end one."""
        generation = self.opening.generation
        return replace(generation, stop=(*generation.stop, *self.opening.template.stop))

    def prompts(self, model: ChatModel) -> PromptMaker:
        """Return what makes a prompt of a question for `model`."""
        settings = self.opening.settings
        return PromptMaker(
            model,
            self.opening.template,
            self.config,
            system=str(settings.value("system") or ""),
            remember_history=settings.value("history") != "none",
            max_question_bytes=int(settings.value("max_question_bytes")),
            known=None if self.force_answer else self.demo,
        )

    def answering(
        self, model: ChatModel, plan: WorkPlan, *, rank: int = 0, done: frozenset[int] = frozenset()
    ) -> Answering:
        """Return the share of process `rank` in `plan`, without the questions that are `done`."""
        return Answering(
            model,
            self.prompts(model),
            self.config,
            plan,
            replace(self.provenance, dtype=str(model.describe().get("dtype", ""))),
            rank=rank,
            done=done,
            advise=self.advise,
        )

    def advise(self, asked: QuestionRecord) -> Sequence[Notice]:
        """Return what is to be said of the user's words, ours and the plugins', before the model sees them."""
        question = f"{asked.last}\n{asked.input}" if asked.input else asked.last
        before = Conversation(asked.turns, asked.system)
        advised = self.opening.extensions.advise(before, question)
        if self.demo is not None and self.force_answer:
            advised = (*advised, *self.demo.warnings(asked.last))
        return medical_safety.merge_notices(medical_safety.advise(before, question), advised)
