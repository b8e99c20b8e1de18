"""What `medchat sft --eval TASK` measures before and after training."""

from __future__ import annotations

from medchat.plugin_kit import OpenedModel, UsageError, say
from medchat_eval.choice_file import read_choice_file
from medchat_eval.choice_metrics import ChoiceTally
from medchat_eval.choice_prompt import in_every_order
from medchat_eval.choosing import choose_by_likelihood
from medchat_eval.open_file import named_or_shipped
from medchat_eval.scorer import scorer_of

_CHOICE, _SHIPPED = "choice", "data/choice.jsonl"


def evaluate_task(task: str, opened: OpenedModel) -> dict[str, dict[str, float]]:
    """Return the metrics of `choice` (the questions that are shipped) or `choice=FILE`, by letters and rotated.

    Raises UsageError for any other task, and what reading the file raises.
    """
    name, _, file = task.partition("=")
    if name != _CHOICE:
        raise UsageError(
            say(f"--eval 不认识任务“{task}”", f"--eval does not know the task {task!r}"),
            say("可用：choice 或 choice=题目文件", "there is: choice, or choice=FILE"),
        )
    with named_or_shipped(file or None, _SHIPPED) as path:
        items = read_choice_file(path).items
    scorer = scorer_of(opened, lambda asked: ())
    turns = (list(choose_by_likelihood(in_every_order(item), scorer)) for item in items)
    return {name: metric.as_flat() for name, metric in ChoiceTally(turns).metrics.items()}
