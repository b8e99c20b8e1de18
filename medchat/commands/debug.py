"""`medchat debug prompt`: the prompt of a question, segment by segment, and the ids that the model is given."""

from __future__ import annotations

import json
from typing import Any

import click

from medchat.api import Control, PromptIds, PromptParts, Segment
from medchat.asking import open_model
from medchat.cli.group import Group
from medchat.cli.model_command import ModelCommand
from medchat.cli.options import model_flags
from medchat.cli.output import write_out
from medchat.language import say
from medchat.sanitize import sanitize_line

#: The number of characters shown of a segment; `--json` has all.
_SHOWN = 2000


@click.group(cls=Group, help=say("查看模型实际收到的内容。", "See what a model is given."))
def command() -> None:
    """The command group."""


@command.command(
    "prompt",
    cls=ModelCommand,
    help=say(
        "显示一个问题的提示词：各段文字、特殊标记和词元编号。会加载模型，但不作回答。",
        "Show the prompt of a question: its texts, control tokens and ids. The model is loaded but writes nothing.",
    ),
)
@click.argument("question")
@model_flags
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show_prompt(question: str, as_json: bool, **flags: Any) -> int:
    """Show the prompt of one question."""
    with open_model(flags) as opened:
        model, fitted = opened.model, opened.chat().fitted(question)
        given = model.prompt_parts(fitted.segments) if isinstance(model, PromptParts) else fitted.segments
        ids = list(model.prompt_ids(fitted.segments)) if isinstance(model, PromptIds) else None
        whole = {
            "template": str(opened.provenance["template"]),
            "segments": [_as_fields(segment) for segment in fitted.segments],
            "given": [_as_fields(segment) for segment in given],
            "ids": ids,
            "tokens": fitted.tokens,
        }
    text = json.dumps(whole, ensure_ascii=False, indent=2) if as_json else _as_text(whole)
    return write_out(text + "\n")


def _as_fields(segment: Segment) -> dict[str, str]:
    return {"control": segment.token} if isinstance(segment, Control) else {"text": segment.text}


def _as_text(whole: dict[str, Any]) -> str:
    lines = [say("模板：", "template: ") + sanitize_line(whole["template"], 200)]
    for number, segment in enumerate(whole["given"], start=1):
        kind, text = next(iter(segment.items()))
        name = say("特殊标记", "control") if kind == "control" else say("文字", "text")
        shown = json.dumps(text[:_SHOWN], ensure_ascii=False) + ("…" if len(text) > _SHOWN else "")
        lines.append(f"{number}. {name} {sanitize_line(shown, 2 * _SHOWN)}")
    count = say(f"{whole['tokens']} 个词元", f"{whole['tokens']} tokens")
    if whole["ids"] is None:
        lines.append(count + say("（这个模型不给出编号）", " (this model does not report its ids)"))
    else:
        lines.append(count + say("：", ": ") + " ".join(map(str, whole["ids"])))
    return "\n".join(lines)
