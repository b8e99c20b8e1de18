"""`medchat safety test`: scores the rules on a file of labelled sentences."""

from __future__ import annotations

import json
from typing import Any

import click

from medchat.cli.group import LocalizedCommand
from medchat.cli.output import write_out
from medchat.errors import DataError
from medchat.language import say
from medchat.medical_safety.labelled import Score, Tally, read_sentences, score
from medchat.sanitize import sanitize_line
from medchat.user_paths import user_path


@click.command(
    "test",
    cls=LocalizedCommand,
    help=say(
        "用标注过的句子给危险信号的规则打分：召回率、误报率、95% 区间，按类别和语言。每行"
        ' {"text": "…", "must": true}。',
        "Score the red-flag rules on labelled sentences: recall, false alarms, intervals of 95 %, by category and"
        ' language. Each line is {"text": "…", "must": true}.',
    ),
)
@click.argument("file", metavar="FILE.jsonl")
@click.option("--wrong", is_flag=True, help=say("列出不一致的句子", "list the sentences that disagree"))
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(file: str, wrong: bool, as_json: bool) -> int:
    """Score the rules on a file."""
    sentences = read_sentences(user_path(file))
    if not sentences:
        raise DataError(say("文件里没有句子", "the file holds no sentences"), where=file)
    result = score(sentences)
    if as_json:
        return write_out(json.dumps(_fields(result, wrong), ensure_ascii=False, indent=2) + "\n")
    return write_out("".join(f"{line}\n" for line in _lines(result, wrong)))


def _tally_fields(tally: Tally) -> dict[str, Any]:
    low, high = tally.interval
    return {
        "fired": tally.fired,
        "total": tally.total,
        "share": round(tally.share, 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def _group_fields(groups: dict[tuple[str, bool], Tally]) -> list[dict[str, Any]]:
    return [
        {"name": name, "must": must, **_tally_fields(tally)} for (name, must), tally in sorted(groups.items())
    ]


def _fields(result: Score, wrong: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "recall": _tally_fields(result.must),
        "vital": _tally_fields(result.vital),
        "false_alarms": _tally_fields(result.must_not),
        "by_category": _group_fields(result.by_category),
        "by_language": _group_fields(result.by_language),
    }
    if wrong:
        fields["wrong"] = [
            {"line": each.line, "must": each.must, "category": each.category, "text": each.text}
            for each in result.wrong
        ]
    return fields


def _row(name: str, tally: Tally) -> str:
    low, high = tally.interval
    return f"{tally.fired:>6} / {tally.total:<6} {tally.share:>7.1%}  [{low:.1%}, {high:.1%}]  {name}"


def _lines(result: Score, wrong: bool) -> list[str]:
    lines = [
        _row(say("召回率（应当触发）", "recall (must fire)"), result.must),
        _row(say("其中危及生命", "of these, vital"), result.vital),
        _row(say("误报率（不应触发）", "false alarms (must not fire)"), result.must_not),
    ]
    headings = ((say("按类别", "by category"), result.by_category),
                (say("按语言", "by language"), result.by_language))  # fmt: skip
    for heading, groups in headings:
        lines += ["", heading]
        for (name, must), tally in sorted(groups.items(), key=lambda item: (not item[0][1], item[0][0])):
            label = say("应当触发", "must fire") if must else say("不应触发", "must not fire")
            lines.append(_row(f"{sanitize_line(name, 40) or '-'}  {label}", tally))
    if wrong:
        lines += ["", say("不一致的句子", "sentences that disagree")]
        for each in result.wrong:
            kind = say("漏报", "missed") if each.must else say("误报", "false alarm")
            lines.append(f"{each.line}: {kind}  {sanitize_line(each.text, 200)}")
    return lines
