"""An evaluation as a page: report.md, and report.html, which loads nothing."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medchat.plugin_kit import Document, Paragraph, Picture, Quotation, Section, Table, sanitize_line, say
from medchat_eval.results import Evaluation, Metric

#: How many of the cases that went wrong are shown.
_SHOWN = 10
#: The picture: its width, the bars' left end and length, the height of one, in pixels.
_WIDTH, _LEFT, _LENGTH, _BAR = 720, 200, 440, 28


def evaluation_document(evaluation: Evaluation) -> Document:
    """Return the page."""
    title = say(f"评测报告：{evaluation.task}", f"Evaluation: {evaluation.task}")
    sections = [Section(say("结果", "Result"), list(_result(evaluation)))]
    for by, metrics in evaluation.groups.items():
        sections.append(Section(group_title(by), [_table(metrics, by)]))
    if counted := list(_counts(evaluation.counts)):
        sections.append(Section(say("计数", "Counts"), counted))
    if wrong := list(_worst(evaluation.items)):
        sections.append(Section(say("得分最低的", "Lowest scores"), wrong))
    sections.append(Section(say("条件", "Conditions"), list(_conditions(evaluation))))
    return Document(title, sections)


def group_title(by: str) -> str:
    """Return what metrics are parted by, in words."""
    return {"subject": say("各科目", "By subject")}.get(by, by)


def metric_cells(metric: Metric) -> tuple[str, str, str, str]:
    """Return a metric as texts: its value, interval, chance and count."""
    interval = f"{metric.interval.low:.3f}–{metric.interval.high:.3f}" if metric.interval else ""
    chance = "" if metric.chance is None else f"{metric.chance:.3f}"
    return f"{metric.value:.3f}", interval, chance, str(metric.count)


def condition_text(value: Any) -> str:
    """Return a setting as a reader of tables expects it: lists and objects by commas, yes and no in words."""
    if isinstance(value, bool):
        return say("是", "yes") if value else say("否", "no")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={condition_text(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(condition_text, value))
    return "" if value is None else str(value)


def _result(evaluation: Evaluation) -> Iterator[Any]:
    if evaluation.disclaimer:
        yield Paragraph(evaluation.disclaimer)
    yield _table(evaluation.metrics, say("指标", "metric"))
    shares = {name: one for name, one in evaluation.metrics.items() if one.interval and 0 <= one.value <= 1}
    if shares:
        shows = say("各指标的值和 95% 区间，竖线为随机水平", "values with 95 % intervals; the line is chance")
        yield Picture("metrics.svg", shows, bars(shares))
    for warning in evaluation.warnings:
        yield Paragraph(say(f"注意：{warning}", f"Note: {warning}"))


def _table(metrics: Mapping[str, Metric], first: str) -> Table:
    heads = (
        group_title(first),
        say("值", "value"),
        say("95% 区间", "95 % interval"),
        say("随机水平", "chance"),
        "n",
    )
    rows = [(name, *metric_cells(metric)) for name, metric in metrics.items()]
    return Table(heads, rows, numbers=(1, 2, 3, 4))


def _counts(counts: Mapping[str, Any]) -> Iterator[Any]:
    plain = [(name, str(value)) for name, value in counts.items() if not isinstance(value, Mapping)]
    if plain:
        yield Table((say("计数", "count"), ""), plain, numbers=(1,))
    for name, value in counts.items():
        if isinstance(value, Mapping) and value:
            yield Table((name, *map(str, value)), [("", *map(str, value.values()))])


def _worst(items: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    scored = [item for item in items if isinstance(item.get("score"), (int, float)) and item["score"] < 1]
    for item in sorted(scored, key=lambda item: float(item["score"]))[:_SHOWN]:
        facts = [
            f"{name} {item[name]}"
            for name in ("answer", "chosen", "score")
            if item.get(name) not in (None, "")
        ]
        yield Quotation(f"{item['id']}", str(item.get("question", "")))
        if reply := str(item.get("reply", "")):
            yield Quotation(say("回答", "reply"), reply)
        yield Paragraph(say("，", ", ").join(facts))


def _conditions(evaluation: Evaluation) -> Iterator[Any]:
    conditions = (*evaluation.model.items(), *evaluation.settings.items())
    rows = [(name, condition_text(value)) for name, value in conditions]
    yield Table((say("条件", "condition"), say("值", "value")), rows)
    for one in evaluation.data:
        yield Table((say("数据", "data"), ""), [(name, condition_text(value)) for name, value in one.items()])


def bars(metrics: Mapping[str, Metric]) -> str:
    """Return an SVG with a bar for each share, its interval as a line over it and chance as a stroke across it."""
    height = _BAR * len(metrics) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    ]
    for at, (name, metric) in enumerate(metrics.items()):
        top = 8 + at * _BAR
        label = html.escape(sanitize_line(name, 28))
        parts.append(f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{label}</text>')
        parts.append(
            f'<rect x="{_LEFT}" y="{top + 2}" width="{metric.value * _LENGTH:.1f}" height="16" fill="#9ecae1"/>'
        )
        if metric.interval:
            low, high = (_LEFT + end * _LENGTH for end in (metric.interval.low, metric.interval.high))
            ends = f"M{low:.1f} {top + 5}v10M{high:.1f} {top + 5}v10"
            parts.append(f'<path d="M{low:.1f} {top + 10}H{high:.1f}{ends}" stroke="black"/>')
        if metric.chance is not None:
            parts.append(f'<path d="M{_LEFT + metric.chance * _LENGTH:.1f} {top}v20" stroke="#d62728"/>')
        parts.append(f'<text x="{_LEFT + _LENGTH + 8}" y="{top + 14}">{metric.value:.3f}</text>')
    return "".join([*parts, "</svg>"])
