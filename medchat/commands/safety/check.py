"""`medchat safety check`: which rules fire on a text, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.errors import CheckpointError, DataError, UsageError
from medchat.language import say
from medchat.medical_safety import Evidence, RedFlags, as_fields, find_red_flags
from medchat.regular_files import TooLargeError, read_regular
from medchat.sanitize import sanitize, sanitize_line

#: The most bytes read from a file or from stdin.
MAX_BYTES = 1 << 20

#: The labels of the scopes of `medchat.medical_safety.scopes`; `--json` has their names.
_SCOPES = {
    "who.self": ("本人", "the writer"),
    "who.kin": ("亲友", "somebody close"),
    "who.other": ("别人", "somebody else"),
    "who.formal": ("患者等泛称", "a patient or the like"),
    "genre.case": ("病例", "a case"),
    "genre.fiction": ("虚构作品", "fiction"),
    "genre.news": ("新闻", "the press"),
    "genre.study": ("研究", "a study"),
    "genre.lesson": ("科普或教学", "a lesson"),
    "exam": ("考题", "an examination"),
    "conditional": ("假设", "only if"),
    "past": ("过去的事", "in the past"),
    "asked": ("只是提问", "only asked about"),
    "joke": ("玩笑", "a joke"),
    "predicate": ("说的是发生了的事", "said to happen"),
    "no predicate": ("没有说发生了", "not said to happen"),
    "nobody named": ("没有说是谁", "nobody named"),
    "wording": ("措辞不像紧急情况", "the wording"),
}


@click.command(
    "check",
    cls=LocalizedCommand,
    help=say(
        "检查一段话会触发哪些危险信号、依据是什么（词、语境、规则、来源）。参数为一段话、一个文件，或 -（标准输入）。",
        "Which red flags a text raises and why (words, scopes, rule, source). TEXT is the text itself, a file, or -"
        " for stdin.",
    ),
)
@click.argument("text", metavar="TEXT")
@click.option(
    "--previous", default="", metavar="TEXT", help=say("用户的上一句话", "the user's turn before it")
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(text: str, previous: str, as_json: bool) -> int:
    """Show the rules that fire on a text."""
    words = _words(text)
    if not words.strip():
        raise UsageError(say("没有要检查的文字", "there is no text to check"), 'medchat safety check "…"')
    flags = find_red_flags(words, previous or None)
    if as_json:
        return write_out(json.dumps(_fields(flags), ensure_ascii=False, indent=2) + "\n")
    if not flags:
        say_aside(
            say(
                "没有触发提示。没有提示不等于安全。",
                "no rule fired. That does not mean it is safe.",
            )
        )
    return write_out("".join(f"{line}\n" for line in _lines(flags)))


def _words(text: str) -> str:
    if text == "-":
        return _decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "-")
    try:
        path = Path(text)
        if not path.is_file():
            return text
    except (OSError, ValueError):  # too long for a file name, or it contains NUL: it is the text itself
        return text
    try:
        return _decoded(read_regular(path, MAX_BYTES), text)
    except TooLargeError:
        raise _too_long(text) from None
    except OSError as error:
        raise CheckpointError(
            say(f"无法读取文件：{error.strerror}", f"cannot read the file: {error.strerror}"), where=text
        ) from None


def _decoded(data: bytes, where: str) -> str:
    if len(data) > MAX_BYTES:
        raise _too_long(where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            say("不是 UTF-8 文本", "not UTF-8 text"), "iconv -f GB18030 -t UTF-8", where=f"{where}:{line}"
        ) from None


def _too_long(where: str) -> DataError:
    return DataError(
        say(f"超过 {MAX_BYTES >> 20} MiB", f"more than {MAX_BYTES >> 20} MiB"),
        say("分成几段检查", "check it in pieces"),
        where=where,
    )


def _fields(flags: RedFlags) -> dict[str, Any]:
    return {
        "notices": [{**as_fields(notice), "vital": notice.vital} for notice in flags.notices],
        "evidence": [_evidence_fields(each) for each in flags.evidence],
        "silenced": [_evidence_fields(each) for each in flags.silenced],
    }


def _evidence_fields(evidence: Evidence) -> dict[str, Any]:
    return {
        "rule": evidence.rule,
        "key": evidence.key,
        "vital": evidence.vital,
        "mentions": [
            {
                "start": mention.start,
                "end": mention.end,
                "text": mention.text,
                "concept": mention.concept,
                "previous": mention.previous,
            }
            for mention in evidence.mentions
        ],
        "scopes": list(evidence.scopes),
        "silenced_by": evidence.silenced_by,
        "source": evidence.source,
    }


def _lines(flags: RedFlags) -> list[str]:
    lines: list[str] = []
    for notice in flags.notices:
        lines += [f"[{notice.key}] {sanitize(notice.text)}", ""]
    for each in flags.evidence:
        lines += _described(each, say("触发", "fired"))
    for each in flags.silenced:
        reason = scope_in_words(each.silenced_by)
        lines += _described(each, say(f"未触发（{reason}）", f"silenced ({reason})"))
    return lines


def scope_in_words(name: str) -> str:
    """Return the label of a scope in the interface language."""
    return say(*_SCOPES.get(name, (name, name)))


def _described(evidence: Evidence, outcome: str) -> list[str]:
    words = "  ".join(
        f"“{sanitize_line(mention.text, 60)}” {mention.start}-{mention.end} {mention.concept}"
        + (say("（上一句）", " (turn before)") if mention.previous else "")
        for mention in evidence.mentions
    )
    return [
        f"{outcome}  {evidence.rule}  [{evidence.key}]",
        say("  词：", "  words: ") + words,
        say("  语境：", "  scopes: ") + (say("、", ", ").join(map(scope_in_words, evidence.scopes)) or "-"),
        say("  来源：", "  source: ") + evidence.source,
    ]
