"""A task run by lm-evaluation-harness on a model that MedChat opened. Imported where `medchat[lm-eval]` is installed.

The harness gets a mapping that `task_yaml` has read and records that MedChat has read: it opens no file, asks no hub
and keeps no cache. Its templates are rendered in Jinja's sandbox: outside it, a template can run any code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import lm_eval.api.task
import lm_eval.utils
from jinja2 import BaseLoader, StrictUndefined
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from medchat.plugin_kit import DataError, OpenedModel, UsageError, say
from medchat_eval.replies import ModelReply, Prompt
from medchat_eval.results import Metric, bootstrap_metric, mean_metric, share_metric
from medchat_eval.scorer import score_prompts
from medchat_eval.task_yaml import TaskFile

#: So many prompts go to the model together.
_TOGETHER = 64
#: The seed of the harness for worked examples: the same as its own command uses.
_FEWSHOT_SEED = 1234
#: Gives the replies to prompts, in order.
Replier = Callable[[Sequence[Prompt]], Sequence[ModelReply]]


@dataclass(frozen=True, slots=True)
class HarnessRun:
    """What the harness found: its metrics, and the single cases of the first filter."""

    metrics: Mapping[str, Metric]
    items: Sequence[Mapping[str, Any]]
    refused: int
    shots: int


class _Records(list[dict[str, Any]]):
    """Records as the harness asks for them: each with every column, and the columns as `features`."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.features = dict.fromkeys(name for row in rows for name in row)
        super().__init__(self.features | dict(row) for row in rows)


class _OpenedLM(LM):  # type: ignore[misc]  # the library has no types
    """The model as the harness sees it: a context is the user's words, in the model's template."""

    def __init__(self, opened: OpenedModel, replies: Replier) -> None:
        super().__init__()
        self._opened, self._replies = opened, replies
        self.refused = 0

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation; that it is greedy is never said."""
        asked = [
            (context, [one.args[1] for one in alike])
            for context, alike in groupby(requests, key=lambda one: one.args[0])
        ]
        found: list[tuple[float, bool]] = []
        for start in range(0, len(asked), _TOGETHER):
            block = asked[start : start + _TOGETHER]
            scored = score_prompts(
                self._opened, [Prompt(one) for one, _ in block], [words for _, words in block]
            )
            for one in scored:
                if one.refusal:
                    raise UsageError(one.refusal, say("用更小的 --shots", "take a smaller --shots"))
                # Without the end of the answer, which the harness does not score.
                found += [(sum(values[:-1]), False) for values in one.values]
        return found

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the answers, each up to the first of its stop texts."""
        replies = self._replies([Prompt(one.args[0]) for one in requests])
        self.refused += sum(bool(reply.refusal) for reply in replies)
        return [
            _before(reply.text, one.args[1].get("until", ()))
            for one, reply in zip(requests, replies, strict=True)
        ]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Refuse: a text without a question before it is nothing that a chat model is asked. Raises UsageError.

        `read_task_file` refuses the task before; the harness has its models say how they would compute it.
        """
        raise UsageError(
            say(
                "不支持对整段文字计算困惑度的任务", "tasks on the perplexity of whole texts are not supported"
            ),
            say("困惑度见 medchat eval text", "for perplexity: medchat eval text"),
        )


def run_task(
    task: TaskFile,
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    opened: OpenedModel,
    replies: Replier,
    *,
    shots: int | None = None,
    limit: int | None = None,
) -> HarnessRun:
    """Run a task on `records`, by split. `shots` stands in for the task's own number of worked examples.

    Raises DataError for a template that cannot be filled or a split that is not there, UsageError for a prompt that
    does not fit, and what the model raises.
    """
    _prepare_harness()
    model = _OpenedLM(opened, replies)
    try:
        loaded = TaskManager(include_defaults=False).load([_configured(task, records, shots)])
        (made,) = loaded["tasks"].values()
        made.set_fewshot_seed(_FEWSHOT_SEED)
        found = evaluate(model, loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    except (TemplateError, LookupError, ValueError, TypeError, SyntaxError) as error:
        raise DataError(
            say("任务与数据不符：", "the task does not fit the data: ") + f"{type(error).__name__}: {error}",
            say(
                "检查 doc_to_* 里的字段和数据的列名",
                "check the fields in doc_to_* and the columns of the data",
            ),
            where=str(task.path),
        ) from None
    (samples,) = found["samples"].values()
    if task.output_type == "multiple_choice":
        _require_targets(samples, task)
    by_filter = [(name, list(rows)) for name, rows in groupby(samples, key=lambda one: one["filter"])]
    metrics = dict(_metrics(by_filter, made.aggregation(), task.output_type))
    items = [_as_item(sample, at) for at, sample in enumerate(by_filter[0][1])]
    return HarnessRun(metrics, items, model.refused, int(made.config.num_fewshot or 0))


def _require_targets(samples: Sequence[Mapping[str, Any]], task: TaskFile) -> None:
    """Raise DataError where the right choice is none of the choices, which the harness would count as wrong."""
    for sample in samples:
        choices = [continuation for _, continuation in sample["arguments"]]
        listed = sample["target"] if isinstance(sample["target"], list) else [sample["target"]]
        if not all(
            0 <= one < len(choices)
            if isinstance(one, int)
            else any(one and choice.endswith(one) for choice in choices)
            for one in listed
        ):
            number, target = sample["doc_id"] + 1, sample["target"]
            raise DataError(
                say(
                    f"第 {number} 条的答案“{target}”不在选项里",
                    f"record {number}: the answer {target!r} is no choice",
                ),
                say(
                    "检查 doc_to_target、doc_to_choice 和数据",
                    "check doc_to_target, doc_to_choice and the data",
                ),
                where=str(task.path),
            )


def _prepare_harness() -> None:
    """Give it an environment in which templates reach no attribute of Python's, and quiet its log and its bars."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    sandbox = ImmutableSandboxedEnvironment(
        loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True
    )
    sandbox.filters |= lm_eval.utils.env.filters
    lm_eval.utils.env = sandbox
    lm_eval.api.task.tqdm = lambda steps, **_: steps


def _configured(
    task: TaskFile, records: Mapping[str, Sequence[Mapping[str, Any]]], shots: int | None
) -> dict[str, Any]:
    """Return the task as the harness takes it, with the records in place of what it would load."""
    dropped = ("dataset_path", "dataset_name", "dataset_kwargs", "group", "tag")
    config = {name: value for name, value in task.config.items() if name not in dropped}
    for name in ("test_split", "validation_split", "training_split", "fewshot_split"):
        if (split := config.get(name)) is not None and split not in records:
            if name in ("test_split", "validation_split"):
                raise DataError(
                    say(f"没有 {name} 的数据：{split}", f"no data for {name}: {split}"),
                    f"--data {split}=FILE",
                    where=str(task.path),
                )
            del config[name]
    # The harness hands the metadata over too.
    config["custom_dataset"] = lambda **_: {name: _Records(rows) for name, rows in records.items()}
    return config | ({} if shots is None else {"num_fewshot": shots})


def _metrics(
    by_filter: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    aggregations: Mapping[str, Callable[[Sequence[Any]], float]],
    output_type: str,
) -> Iterator[tuple[str, Metric]]:
    """Yield each metric, of the filters after the first under the filter's name too."""
    for at, (filter_name, samples) in enumerate(by_filter):
        for name in samples[0]["metrics"]:
            values = [sample[name] for sample in samples]
            chance = None
            if output_type == "multiple_choice" and name.startswith("acc"):
                chance = sum(1 / len(sample["arguments"]) for sample in samples) / len(samples)
            yield name if not at else f"{name} ({filter_name})", _metric(values, aggregations[name], chance)


def _metric(
    values: Sequence[Any], aggregation: Callable[[Sequence[Any]], float], chance: float | None
) -> Metric:
    """Return a metric with its interval: from the cases themselves where they are numbers, else by bootstrap."""
    total = float(aggregation(values))
    if all(isinstance(value, (int, float)) for value in values):
        made = share_metric(values, chance) if all(0 <= one <= 1 for one in values) else mean_metric(values)
        if abs(made.value - total) < 1e-9:
            return made
    return bootstrap_metric(
        total, len(values), lambda at: float(aggregation([values[one] for one in at])), chance
    )


def _as_item(sample: Mapping[str, Any], at: int) -> dict[str, Any]:
    numbers = [sample[name] for name in sample["metrics"] if isinstance(sample[name], (int, float))]
    answers = [answer for answer in sample["filtered_resps"] if isinstance(answer, str)]
    return {
        "id": str(sample["doc"].get("id", at)),
        "question": sample["arguments"][0][0],
        "target": str(sample["target"]),
        **({"reply": answers[0]} if answers else {}),
        **({"score": float(numbers[0])} if numbers else {}),
    }


def _before(text: str, stops: Sequence[str]) -> str:
    """Return the text up to the first of the stop texts."""
    ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
