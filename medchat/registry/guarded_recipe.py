"""A fine-tuning recipe of a plugin behind the guard, and whoever watches its run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from medchat.api import (
    DiskEstimate,
    MemoryEstimate,
    PromptTemplate,
    SFTData,
    SFTEvent,
    SFTOptions,
    SFTRecipe,
    SFTReport,
    SFTSurvey,
    SFTWatcher,
)
from medchat.language import say
from medchat.registry.contract import ContractError, require, result_of
from medchat.registry.guarded_template import given_template, guarded_template
from medchat.registry.metadata import PluginEntry
from medchat.registry.plugin import asked, guarded

Answer = TypeVar("Answer")


class GuardedRecipe(SFTRecipe):
    """The recipe `inner` of the plugin behind `entry`. Raises BrokenPluginError for what is against `SFTRecipe`.

    A MedchatError that the plugin raises on purpose passes unchanged.
    """

    def __init__(self, inner: SFTRecipe, entry: PluginEntry) -> None:
        self._inner, self._entry = inner, entry
        self.method = asked(entry, "recipe.method", lambda: inner.method, str)
        self._defaults = asked(entry, "recipe.defaults", lambda: inner.defaults, Mapping[str, Any])
        self._collators = asked(entry, "recipe.collators", lambda: inner.collators, tuple[str, ...])

    @property
    def defaults(self) -> Mapping[str, Any]:  # type: ignore[override]
        """See `SFTRecipe`, as all that follows."""
        return self._defaults

    @property
    def collators(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._collators

    def resolve_options(self, options: SFTOptions) -> SFTOptions:
        return self._asked(SFTRecipe.resolve_options, lambda: self._inner.resolve_options(options))

    def template(self, options: SFTOptions) -> PromptTemplate | None:
        where = "recipe.template"
        found = asked(self._entry, where, lambda: self._inner.template(options), Any)
        return None if found is None else guarded_template(found, self._entry, where)

    def survey(self, data: SFTData, options: SFTOptions) -> SFTSurvey | None:
        return self._asked(SFTRecipe.survey, lambda: self._inner.survey(_given(data), options))

    def estimate(self, options: SFTOptions, survey: SFTSurvey | None) -> MemoryEstimate | None:
        return self._asked(SFTRecipe.estimate, lambda: self._inner.estimate(options, survey))

    def disk(self, options: SFTOptions, survey: SFTSurvey | None) -> DiskEstimate | None:
        return self._asked(SFTRecipe.disk, lambda: self._inner.disk(options, survey))

    def run(self, data: SFTData, options: SFTOptions, watch: SFTWatcher) -> SFTReport:
        report = self._asked(
            SFTRecipe.run, lambda: self._inner.run(_given(data), options, _CheckedWatcher(watch))
        )
        with guarded(self._entry, "recipe.run"):
            if report.output.resolve() != options.output.resolve():
                raise ContractError(
                    say(
                        f"output 应为 {options.output}，却得到 {report.output}",
                        f"expected output {options.output}, got {report.output}",
                    )
                )
        return report

    def _asked(self, method: Callable[..., Answer], question: Callable[[], Answer]) -> Answer:
        return asked(self._entry, f"recipe.{method.__name__}", question, result_of(method))


class _CheckedWatcher:
    """Passes on what a recipe says of its run, where it is what `SFTWatcher` takes."""

    def __init__(self, watch: SFTWatcher) -> None:
        self._watch = watch

    @property
    def cancel(self) -> threading.Event:
        return self._watch.cancel

    def on_event(self, event: SFTEvent) -> None:
        self._watch.on_event(require(event, SFTEvent, "on_event"))

    def finish(self, folder: Path, report: SFTReport) -> None:
        self._watch.finish(require(folder, Path, "finish"), require(report, SFTReport, "finish"))


def _given(data: SFTData) -> SFTData:
    """Return the data with its template as the plugin knows it."""
    return replace(data, template=given_template(data.template))
