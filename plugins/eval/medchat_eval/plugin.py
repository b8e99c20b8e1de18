"""Where MedChat finds the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from medchat.plugin_kit import hookimpl

if TYPE_CHECKING:
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
