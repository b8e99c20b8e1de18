"""The hooks a plugin may implement. Few on purpose: what a model family does lives on its `Backbone`.

A plugin is a module (or an object) with `medchat_api_version = 1` and functions marked `@hookimpl`, named by
an entry point. A hook implementation may take fewer of the arguments than are listed here. Each plugin is
called under its own guard: an exception, or a result of the wrong kind, is reported once in one line and the
others continue. No hook stops at the first result, and none can take away what MedChat or another plugin
says: the disclaimer, the sanitising of text, file modes and the loading of weights are not hookable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pluggy

from medchat.api import Backbone, Conversation, Notice, PromptTemplate, SFTRecipe, SlashCommand, Turn

PROJECT = "medchat"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `medchat doctor`: what was looked at and found; `remedy` is what to do if not `ok`."""

    ok: bool
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ReferencedAnswer:
    """What a model answered, and what its record says is right: `reference`, "" where it says nothing."""

    question: str
    answer: str
    reference: str


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Scores from 0 to 1, one for each answer, None for one without; `metrics` as `medchat_evaluate` returns."""

    scores: Sequence[float | None]
    metrics: Mapping[str, Mapping[str, float]]


class Hooks(Protocol):
    """What a plugin may implement, as functions without `self`: signatures, for pluggy to check against."""

    @hookspec
    def medchat_backbones(self) -> Sequence[Backbone]:
        """Offer model families. Called when one of the plugin's names is asked for with `--backbone`.

        For entry points of the group `medchat`. Return instances, one of them with the entry point's name.
        Called again in each process; construct nothing heavy and import no torch here. An exception ends the
        program with exit code 5 if this backbone was asked for, and is one reported line otherwise.
        """

    @hookspec
    def medchat_templates(self) -> Sequence[PromptTemplate]:
        """Offer prompt templates for `--template NAME`. Called once, before a chat, batch or training starts.

        A shipped template of the same name is not replaced. Other backbones may borrow them by name, those
        whose control tokens their vocabulary has.
        """

    @hookspec
    def medchat_sft_recipes(self) -> Mapping[str, Sequence[SFTRecipe]]:
        """Offer ways of fine-tuning, by the name of the backbone they are for. Called once by `medchat sft`.

        A backbone's own recipe of the same method is not replaced.
        """

    @hookspec
    def medchat_slash_commands(self) -> Sequence[SlashCommand]:
        """Offer commands for the prompt. Called once when an interactive chat starts.

        A built-in command of the same name is not replaced. What `run` returns is shown as plain text; what
        it raises is shown as one line.
        """

    @hookspec
    def medchat_commands(self) -> Sequence[object]:
        """Offer `click.Command` objects for `medchat NAME`. Called when the user types that NAME.

        The name must be in the entry-point group `medchat.commands` too, so that `medchat --help` can list it
        without importing the plugin. A built-in command of the same name is not replaced.
        """

    @hookspec
    def medchat_evaluate(self, task: str, opened: object) -> Mapping[str, Mapping[str, float]]:
        """Evaluate a model, an `OpenedModel`, on `task`: the word after `medchat sft --eval`.

        Called before and after training, of the plugin that offers `medchat eval`. Return the metrics by name, each
        with `value` and where they are known `n`, `low` and `high` (the ends of its interval) and `chance`. Raise
        UsageError for a task that is not known; training has not begun then.
        """

    @hookspec
    def medchat_score_answers(self, answers: Sequence[ReferencedAnswer]) -> AnswerScores:
        """Score the answers of one result file of `medchat infer`, in their order.

        Called by `medchat compare` where a record says what is right, of the plugin that offers `medchat eval`.
        """

    @hookspec
    def medchat_advise(self, conversation: Conversation, text: str) -> Sequence[Notice]:
        """Add notices about what the user just typed, before the model sees it. Called for every question.

        `conversation` is what was said before `text`. Return no notice for "nothing to say". The answer
        waits for this: be quick, do not touch the network.
        """

    @hookspec
    def medchat_turn_saved(self, conversation: Conversation, turn: Turn) -> None:
        """Called when `turn`, now the last of `conversation`, is complete (and on disk, if sessions are saved).

        Return nothing. The words are a person's own: a plugin that sends them anywhere must say so in its
        documentation.
        """

    @hookspec
    def medchat_doctor(self, settings: Mapping[str, object]) -> Sequence[Finding]:
        """Add findings to `medchat doctor`. `settings` are the effective values by key, to be read only."""
