"""`medchat models show`: describes a folder or a name without loading any weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from medchat.api import AdapterCard, Capabilities, ModelCard
from medchat.chat.model_choice import (
    find_adapter,
    find_model,
    known_weights,
    open_registry,
    recognize_backbone,
)
from medchat.checkpoints.layout import unrecognised
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.commands.models.adapter_folder import read_adapter
from medchat.commands.models.format import as_json, note_line, rows, table
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.registry import Registry
from medchat.settings import Settings
from medchat.units import amount
from medchat.user_paths import user_path
from medchat.weights.folders import State, folder_of, is_adapter, state_of

#: Bytes per parameter at each width, for the memory table. int4 with one fp16 scale per row is just over a
#: half.
WIDTHS = (("float32", 4.0), ("bfloat16", 2.0), ("float16", 2.0), ("int8", 1.0), ("int4", 0.5))

_THIS = "medchat models show"


def _widths(can: Capabilities) -> list[tuple[str, float]]:
    """Return the widths in which models of this family can be loaded."""
    return [(name, width) for name, width in WIDTHS if name in (*can.dtypes, *can.quantize)]


def _card_as_json(card: ModelCard, can: Capabilities) -> dict[str, Any]:
    return {
        "backbone": card.backbone,
        "family": card.family,
        "generation": card.generation or None,
        "path": str(card.path),
        "vocab_size": card.vocab_size,
        "layers": card.layers,
        "hidden_size": card.hidden_size,
        "parameters": card.parameters,
        "dtypes": list(card.dtypes),
        "weight_bytes": card.weight_bytes,
        "quantization": card.quantization,
        "context_length": card.context_length,
        "template": card.template or None,
        "adapters": list(card.adapters),
        "memory_bytes": {name: card.memory(width) for name, width in _widths(can)} if card.parameters else {},
        "capabilities": asdict(can),
        "notes": list(card.notes),
    }


def _card_as_text(card: ModelCard, can: Capabilities) -> str:
    """Return the facts about the model, a row each; unknown ones are left out."""
    shape = f"{card.layers} / {card.hidden_size}" if card.layers else ""
    tokens = say(f"{card.context_length} 个词元", f"{card.context_length} tokens")
    memory = [f"{name} {_gib(card.memory(width))}" for name, width in _widths(can)]
    facts = [
        (
            say("家族", "family"),
            card.family + say(f"（--backbone {card.backbone}）", f" (--backbone {card.backbone})"),
        ),
        (say("版本", "generation"), card.generation),
        (say("文件", "file") if card.path.is_file() else say("目录", "folder"), str(card.path)),
        (say("参数量", "parameters"), _amount(card.parameters) if card.parameters else ""),
        (say("层数 / 宽度", "layers / width"), shape),
        (say("词表行数", "vocabulary rows"), str(card.vocab_size or "")),
        (say("上下文", "context"), tokens if card.context_length else ""),
        (say("权重精度", "stored as"), say("、", ", ").join(card.dtypes)),
        (say("量化", "quantised"), say("无", "no") if card.quantization == "none" else card.quantization),
        (say("权重大小", "weights"), amount(card.weight_bytes) if card.weight_bytes else ""),
        (say("模板", "template"), card.template or say("不能使用", "cannot be used")),
        (
            say("配套的适配器", "adapters that fit"),
            (say("、", ", ").join(card.adapters) or say("没有已知的", "none known")) if can.adapters else "",
        ),
        (say("加载所需内存", "memory to load"), say("；", "; ").join(memory) if card.parameters else ""),
        (say("不支持", "cannot"), say("、", ", ").join(_missing(can))),
    ]
    known = [(name, value) for name, value in facts if value]
    return "\n".join([table(known), *(note_line(note) for note in card.notes)])


def _missing(can: Capabilities) -> list[str]:
    """Return the flags that the family does not support."""
    flags = [
        ("--num-beams", can.beams),
        ("--adapter", can.adapters),
        ("--dtype", can.dtypes),
        ("--quantize", can.quantize),
        ("--device", can.devices),
    ]
    return [flag for flag, possible in flags if not possible]


def _amount(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return str(count)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.1f} MiB"


@click.command(
    "show",
    cls=LocalizedCommand,
    help=say(
        "说明一个目录或名称对应什么：模型、模板、所需内存；尚未下载的，说明从哪里获取。",
        "Say what a folder or a name is: model, template, memory; for weights not on this machine, where to get them.",
    ),
)
@click.argument("model", metavar="PATH|NAME")
@click.option("--backbone", metavar="NAME", help=say("按这个模型家族解读", "read it as this family"))
@click.option("--json", "as_json_", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(model: str, backbone: str | None, as_json_: bool) -> int:
    """Describe the folder or the name."""
    registry = open_registry(Settings.load())
    catalogue = known_weights(registry)
    given = user_path(model)
    entry = None if given.exists() else catalogue.find(model)
    if entry and state_of(folder_of(entry.known.name)) is not State.HERE:
        return _write(as_json(entry), table(rows(entry)), as_json_)
    adapter = entry is not None and entry.known.kind == "adapter"
    path = (
        find_adapter(model, registry)
        if adapter
        else find_model(model, backbone, registry, either=True, flag=_THIS)
    )
    if is_adapter(path):
        facts = read_adapter(path, catalogue, _adapter_card(registry, backbone, path))
        return _write(facts.as_json(), facts.as_text(), as_json_)
    chosen = registry.backbone(backbone) if backbone else recognize_backbone(registry, path, _THIS)
    card = chosen.inspect(path)
    for line in registry.lines():
        say_aside(line)
    if card is None:
        raise unrecognised(path, _THIS) or CheckpointError(
            say(f"这个目录里不是 {chosen.name} 的模型", f"this folder is not a {chosen.name} model"),
            f"{_THIS} {model}",
            where=str(path),
        )
    can = chosen.capabilities
    return _write(_card_as_json(card, can), _card_as_text(card, can), as_json_)


def _adapter_card(registry: Registry, backbone: str | None, path: Path) -> AdapterCard | None:
    """Return the chosen backbone's description of the folder, else the first one of any backbone."""
    if backbone:
        return registry.backbone(backbone).inspect_adapter(path)
    cards = registry.call_each(lambda known: known.inspect_adapter(path))
    return next((card for _, card in cards if card is not None), None)


def _write(whole: dict[str, Any], text: str, as_json_: bool) -> int:
    return write_out((json.dumps(whole, ensure_ascii=False, indent=2) if as_json_ else text) + "\n")
