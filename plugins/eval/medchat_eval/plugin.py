"""Where MedChat finds the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from medchat.plugin_kit import AnswerScores, ReferencedAnswer, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medchat.plugin_kit import OpenedModel

medchat_api_version = 1


@hookimpl
def medchat_commands() -> list[click.Command]:
    """Return the command `medchat eval`."""
    from medchat_eval.command import evaluate

    return [evaluate]


@hookimpl
def medchat_evaluate(task: str, opened: OpenedModel) -> dict[str, dict[str, float]]:
    """Return what `medchat sft --eval TASK` reports of a model."""
    from medchat_eval.training_tasks import evaluate_task

    return evaluate_task(task, opened)


@hookimpl
def medchat_score_answers(answers: Sequence[ReferencedAnswer]) -> AnswerScores:
    """Return what `medchat compare` shows beside the answers."""
    from medchat_eval.scored_answers import score_answers

    scores, metrics = score_answers(answers)
    return AnswerScores(scores, {name: metric.as_flat() for name, metric in metrics.items()})
