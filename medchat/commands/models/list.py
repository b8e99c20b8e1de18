"""`medchat models list`: the published weights, kept quantised ones, common questions and citations. No network."""

from __future__ import annotations

import json
from itertools import groupby

import click

from medchat.api import Backbone
from medchat.chat.model_choice import known_weights, open_registry
from medchat.checkpoints.kept_quantized import all_kept
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.commands.models.format import (
    as_json,
    kept_as_json,
    kept_line,
    kind_in_words,
    note_of,
    size_of,
    state_in_words,
)
from medchat.language import current_language, say
from medchat.paths import quantized_dir
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.weights.catalogue import Entry
from medchat.weights.common_questions import citations, common_questions


@click.command(
    "list",
    cls=LocalizedCommand,
    help=say(
        "列出已知的权重：位置、大小、许可、模板，以及适配器适用的模型。不联网。",
        "List known weights: where, size, licence, template, which adapter fits which model. Offline.",
    ),
)
@click.option("--json", "as_json_", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(as_json_: bool) -> int:
    """List the weights."""
    registry = open_registry(Settings.load())
    catalogue = known_weights(registry)
    titles = {backbone.name: title for backbone, title in registry.call_each(_title)}
    for failure in registry.failures:
        say_aside(str(failure))
    kept = all_kept(quantized_dir())
    if as_json_:
        whole = [*(as_json(entry) for entry in catalogue), *(kept_as_json(one) for one in kept)]
        return write_out(json.dumps(whole, ensure_ascii=False, indent=2) + "\n")
    lines = []
    for name, entries in groupby(catalogue, key=lambda entry: entry.backbone):
        lines += [sanitize_line(name) + say("：", ": ") + sanitize_line(titles.get(name, ""), 200)]
        lines += [line for entry in entries for line in _described(entry)]
        lines.append("")
    if kept:
        lines += [say("保存的量化权重：", "Kept quantised weights:"), *map(kept_line, kept), ""]
    return write_out("\n".join([*lines, *_afterword()]) + "\n")


def _title(backbone: Backbone) -> str:
    return str(backbone.summary.get(current_language()) or next(iter(backbone.summary.values()), ""))


def _described(entry: Entry) -> list[str]:
    known = entry.known
    first = (known.name, f"[{state_in_words(entry)}]", size_of(entry), kind_in_words(entry))
    second = (known.title, say("模板 ", "template ") + known.template, known.licence, known.source)
    lines = ["  " + "  ".join(sanitize_line(word, 200) for word in first)]
    lines.append("      " + " · ".join(sanitize_line(word, 200) for word in second))
    if note := note_of(entry):
        lines.append("      " + say("！", "! ") + sanitize_line(note, 300))
    return lines


def _afterword() -> list[str]:
    lines = [
        say("下载：medchat models pull 名称", "fetch: medchat models pull NAME"),
        say("详情：medchat models show 名称", "more: medchat models show NAME"),
        say(
            "清除保存的量化权重：medchat models clean", "remove kept quantised weights: medchat models clean"
        ),
        say(
            "使用：medchat chat --model 名称 [--adapter 名称]",
            "use: medchat chat --model NAME [--adapter NAME]",
        ),
        "",
        say("常见问题", "Common questions"),
    ]
    for asked in common_questions():
        lines += [f"  {asked.question}", f"      {asked.answer}"]
    lines += ["", say("引用", "Citations")]
    lines += [f"  {work.title}. {work.authors}. {work.where}" for work in citations()]
    return lines
