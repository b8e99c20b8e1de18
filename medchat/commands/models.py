"""`medchat models`: what a model folder is, learned without loading its weights."""

from __future__ import annotations

import json
from typing import Any

import click

from medchat.api import Backbone, ModelCard
from medchat.cli.group import Group
from medchat.cli.output import write_out
from medchat.commands.opening import find_model, recognise
from medchat.errors import CheckpointError
from medchat.inert import inert_line
from medchat.language import say
from medchat.registry import Registry

#: Bytes a parameter takes at each width, for the memory table. int4 with one fp16 scale a row is just over a half.
WIDTHS = (("float32", 4.0), ("bfloat16", 2.0), ("float16", 2.0), ("int8", 1.0), ("int4", 0.5))


def _as_json(card: ModelCard) -> dict[str, Any]:
    return {
        "backbone": card.backbone,
        "family": card.family,
        "path": str(card.path),
        "vocab_size": card.vocab_size,
        "layers": card.layers,
        "hidden_size": card.hidden_size,
        "parameters": card.parameters,
        "dtypes": list(card.dtypes),
        "weight_bytes": card.weight_bytes,
        "quantization": card.quantization,
        "context_length": card.context_length,
        "template": card.template,
        "memory_bytes": {name: card.memory(width) for name, width in WIDTHS},
        "notes": list(card.notes),
    }


def _as_text(card: ModelCard) -> str:
    rows = [
        (say("家族", "family"), f"{card.family} (--backbone {card.backbone})"),
        (say("目录", "folder"), str(card.path)),
        (say("参数量", "parameters"), _amount(card.parameters)),
        (say("层数 / 宽度", "layers / width"), f"{card.layers} / {card.hidden_size}"),
        (say("词表行数", "vocabulary rows"), str(card.vocab_size)),
        (say("上下文", "context"), f"{card.context_length} tokens"),
        (say("权重精度", "stored as"), ", ".join(card.dtypes)),
        (say("量化", "quantised"), card.quantization),
        (say("权重大小", "weights"), f"{card.weight_bytes / 1e9:.2f} GB"),
        (say("模板", "template"), card.template),
        (
            say("载入所需内存", "memory to load"),
            "  ".join(f"{name} {_gib(card.memory(width))}" for name, width in WIDTHS),
        ),
    ]
    lines = [f"{label}{'：' if _wide(label) else ': '}{inert_line(value, 300)}" for label, value in rows]
    return "\n".join([*lines, *(f"! {inert_line(note, 300)}" for note in card.notes)])


def _wide(label: str) -> bool:
    return not label.isascii()


def _amount(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return str(count)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.1f} MiB"


@click.group(cls=Group, help=say("查看模型目录。", "Look at model folders."))
def command() -> None:
    """Hold the subcommands."""


@command.command(
    "show",
    help=say(
        "说明一个目录是什么模型、用什么模板、要多少内存。",
        "Say what model a folder holds, its template, the memory it needs.",
    ),
)
@click.argument("model", metavar="PATH|NAME")
@click.option("--backbone", metavar="NAME", help=say("按这个模型家族解读", "read it as this family"))
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "print JSON"))
def show(model: str, backbone: str | None, as_json: bool) -> int:
    """Show what the folder holds."""
    registry = Registry()
    path = find_model(model, backbone)
    chosen: Backbone = registry.backbone(backbone) if backbone else recognise(registry, path)
    card = chosen.inspect(path)
    if card is None:
        raise CheckpointError(
            say(f"这个目录不是 {chosen.name} 的模型", f"this folder is not a {chosen.name} model"),
            f"medchat models show {model}",
            where=str(path),
        )
    if as_json:
        return write_out(json.dumps(_as_json(card), ensure_ascii=False, indent=2) + "\n")
    return write_out(_as_text(card) + "\n")
