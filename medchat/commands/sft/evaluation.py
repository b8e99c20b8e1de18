"""`medchat sft --eval TASK`: the same evaluation before and after training, by the plugin of `medchat eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medchat.api import SFTReport
from medchat.asking import open_model
from medchat.batch.comparison import metric_text
from medchat.commands.sft.prepare import PreparedRun
from medchat.document import Document, Section, Table, as_html, as_markdown
from medchat.errors import UsageError
from medchat.language import say
from medchat.registry.metadata import COMMANDS
from medchat.registry.plugin import LoadedPlugin, asked
from medchat.whole_file import write_whole_file

#: Beside the result: the numbers, and the page for people.
FIGURES, MARKDOWN, HTML = "evaluation.json", "evaluation.md", "evaluation.html"
_PLUGIN = "eval"
#: Metrics by name: `value`, and where they are known `n`, `low`, `high` (ends of the interval) and `chance`.
Measured = Mapping[str, Mapping[str, float]]


class RunEvaluation:
    """One task, measured on what is trained and on what comes out."""

    def __init__(self, prepared: PreparedRun, task: str) -> None:
        """Raises UsageError where no plugin offers `medchat eval`, and in a run of several processes."""
        if not prepared.plan.process.alone:
            raise UsageError(
                say("--eval 只用于单进程训练", "--eval is for runs of one process"),
                say("训练之后再运行 medchat eval", "run medchat eval after training"),
            )
        self._prepared, self._task = prepared, task
        self._plugin = _plugin(prepared)
        self._before: Measured = {}

    def before(self) -> None:
        """Measure the model as it is. Raises UsageError for a task that the plugin does not know."""
        self._before = self._measure(str(self._prepared.plan.options.model), self._adapters)

    def after(self, report: SFTReport) -> list[tuple[str, str]]:
        """Measure the result, write both beside it, and return a row a metric."""
        options = self._prepared.plan.options
        is_adapter = report.kind == "adapter"
        model = options.model if is_adapter else report.output
        adapters = (*self._adapters, str(report.output)) if is_adapter else ()
        measured = self._measure(str(model), adapters)
        names = [name for name in measured if name in self._before]
        rows = [
            (name, metric_text(self._before[name]), metric_text(measured[name]), *_stated(measured[name]))
            for name in names
        ]
        figures = {"task": self._task, "before": dict(self._before), "after": dict(measured)}
        heads = (
            say("指标", "metric"),
            say("训练前", "before"),
            say("训练后", "after"),
            say("随机水平", "chance"),
            "n",
        )
        title = say(f"训练前后的评测：{self._task}", f"Evaluation before and after training: {self._task}")
        page = Document(title, [Section(say("结果", "Result"), [Table(heads, rows, numbers=(1, 2, 3, 4))])])
        write_whole_file(report.output / FIGURES, json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
        write_whole_file(report.output / MARKDOWN, as_markdown(page))
        write_whole_file(report.output / HTML, as_html(page))
        return [(name, f"{before} → {after}") for name, before, after, *_ in rows]

    @property
    def _adapters(self) -> tuple[str, ...]:
        return tuple(str(adapter) for adapter in self._prepared.plan.options.adapters)

    def _measure(self, model: str, adapters: tuple[str, ...]) -> Measured:
        plan = self._prepared.plan
        flags: dict[str, Any] = {
            "backbone": plan.backbone.name,
            "model": model,
            "adapter": adapters,
            "option": (),
            "device": plan.options.device,
            "offline": plan.offline or None,
            "template": self._prepared.template_name or None,
            "greedy": True,
        }
        hook = self._plugin.manager.hook.medchat_evaluate
        with open_model(flags) as opened:
            found: list[Measured] = asked(
                self._plugin.entry,
                "medchat_evaluate",
                lambda: hook(task=self._task, opened=opened),
                list[Mapping[str, Mapping[str, float]]],
            )
        return {name: metric for one in found for name, metric in one.items()}


def _plugin(prepared: PreparedRun) -> LoadedPlugin:
    registry = prepared.plan.registry
    if not any((entry.group, entry.name) == (COMMANDS, _PLUGIN) for entry in registry.entries):
        raise UsageError(
            say(
                "--eval 需要插件 medchat eval，但没有找到",
                "--eval needs the plugin of medchat eval, which is not there",
            ),
            say("medchat plugins list 列出已安装的插件", "medchat plugins list shows what is installed"),
        )
    return registry.plugin(COMMANDS, _PLUGIN)


def _stated(metric: Mapping[str, float]) -> tuple[str, str]:
    """Return what guessing gives and the number of cases, "" for what is not known."""
    chance, count = metric.get("chance"), metric.get("n")
    return ("" if chance is None else f"{chance:.3f}"), ("" if count is None else f"{count:.0f}")
