"""`medchat export merge` and `card`: one checkpoint of base and adapters, and its model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    ResolvedModel,
    model_flags,
    read_json,
    resolve_model,
    sanitize_line,
    say,
    user_path,
    write_whole_file,
)
from medchat_export.conversation_pattern import as_jinja, pattern_of
from medchat_export.licences import parts_of
from medchat_export.model_card import exported_card
from medchat_export.staging import check_space, check_target, staged

F = TypeVar("F", bound=Callable[..., Any])

_MOST_BYTES = 16 << 20
#: Bytes of a number of each type.
DTYPES = {"float16": 2, "bfloat16": 2, "float32": 4}


def target_flags(command: F) -> F:
    """Add `--output` and `--overwrite`."""
    command = click.option("--overwrite", is_flag=True, help=say("替换已有的内容", "replace what is there"))(
        command
    )
    return click.option("--output", metavar="PATH", required=True, help=say("导出到哪里", "where it goes"))(
        command
    )


def weights_type(chosen: str | None) -> str:
    """Return what `--dtype` names; "auto" and nothing at all are float16, in which the weights are published."""
    return "float16" if chosen in (None, "auto") else str(chosen)


def parameters_of(resolved: ResolvedModel) -> int:
    """Return how many numbers the weights hold, 0 if that is not known."""
    card = resolved.backbone.inspect(resolved.options.model)
    return card.parameters if card else 0


def rounding(dtype: str) -> tuple[str, str]:
    """Return what a type of half precision costs, in Chinese and English; empty for float32."""
    if dtype == "float32":
        return ("", "")
    digits = {"float16": "11", "bfloat16": "8"}[dtype]
    return (
        f"权重在 float32 中合并后舍入为 {dtype}（{digits} 位有效数字），回答可能与未合并时略有不同",
        f"weights were merged in float32 and rounded to {dtype} ({digits} significant bits): answers may differ a "
        "little from those of base and adapter apart",
    )


@click.command(
    "merge",
    cls=LocalizedCommand,
    help=say(
        "把 LoRA 适配器并入底座，写成一个完整的检查点，MedChat 和 transformers 都能直接加载。",
        "Merge LoRA adapters into the base and write one whole checkpoint, for MedChat and plain transformers.",
    ),
)
@model_flags
@target_flags
def merge_command(output: str, overwrite: bool, **flags: Any) -> int:
    """Write the folder."""
    dtype = weights_type(flags.pop("dtype"))
    resolved, target = resolve_model(flags), user_path(output)
    check_target(target, resolved.options, overwrite=overwrite)
    check_space(target, parameters_of(resolved) * DTYPES[dtype])
    with staged(target, folder=True, overwrite=overwrite) as folder:
        merge_into(resolved, folder, dtype)
        write_chat_template(resolved, folder)
        (folder / "README.md").write_text(
            exported_card(target.name, resolved, parts_of(resolved), remarks=_remarks(resolved, dtype)),
            encoding="utf-8",
        )
    for note in filter(None, [say(*rounding(dtype))]):
        click.echo(note, err=True)
    report(target)
    return 0


def merge_into(resolved: ResolvedModel, folder: Path, dtype: str) -> None:
    """Write base and adapters into `folder` as one checkpoint, saying that it takes a while."""
    click.echo(say("正在合并……", "merging …"), err=True)
    resolved.backbone.save_merged(resolved.options, folder, dtype)


def write_chat_template(resolved: ResolvedModel, folder: Path) -> None:
    """Write the prompt template for programs that read a chat template, unless the folder has one of its own."""
    pattern = pattern_of(resolved.template)
    own = (folder / "chat_template.jinja", folder / "chat_template.json")
    if pattern is None or any(file.exists() for file in own) or states_template(folder):
        return
    own[0].write_text(as_jinja(pattern), encoding="utf-8")


def states_template(folder: Path) -> bool:
    """Say whether the tokenizer's configuration holds a chat template."""
    try:
        return "chat_template" in read_json(folder / "tokenizer_config.json", _MOST_BYTES)
    except (OSError, ValueError, TypeError):
        return False


def report(target: Path) -> None:
    """Say where the result is and how large it is."""
    files = [file for file in target.rglob("*") if file.is_file()] if target.is_dir() else [target]
    size = sum(file.stat().st_size for file in files)
    amount = f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
    click.echo(f"{sanitize_line(str(target))} ({amount})", err=True)


def _remarks(resolved: ResolvedModel, dtype: str) -> list[tuple[str, str]]:
    made = (
        ("LoRA 适配器已并入底座的权重", "LoRA adapters are merged into the base's weights")
        if resolved.options.adapters
        else ("底座的权重，没有适配器", "the base's weights, without an adapter")
    )
    return [made, *filter(lambda remark: remark[0], [rounding(dtype)])]


@click.command(
    "card",
    cls=LocalizedCommand,
    help=say(
        "写模型卡（README.md）：声明、来源、许可、提问模板。",
        "Write a model card (README.md): disclaimer, origin, licences, prompt template.",
    ),
)
@model_flags
@target_flags
def card_command(output: str, overwrite: bool, **flags: Any) -> int:
    """Write the file."""
    resolved, target = resolve_model(flags), user_path(output)
    check_target(target, resolved.options, overwrite=overwrite)
    named = (*resolved.options.adapters, resolved.options.model)[0]
    with staged(target, folder=False, overwrite=overwrite) as file:
        write_whole_file(file, exported_card(named.resolve().name, resolved, parts_of(resolved), remarks=[]))
    click.echo(sanitize_line(str(target)), err=True)
    return 0
