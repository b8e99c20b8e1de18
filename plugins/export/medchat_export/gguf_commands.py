"""`medchat export gguf` and `ollama`: weights for llama.cpp and for Ollama."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from medchat.plugin_kit import (
    LocalizedCommand,
    ResolvedModel,
    UsageError,
    model_flags,
    require_extra,
    resolve_model,
    say,
    user_path,
    write_whole_file,
)
from medchat_export.conversation_pattern import ConversationPattern, as_jinja, pattern_of
from medchat_export.licences import joined_licence, parts_of
from medchat_export.merge_command import (
    DTYPES,
    merge_into,
    parameters_of,
    report,
    target_flags,
    weights_type,
)
from medchat_export.model_card import exported_card
from medchat_export.ollama import Modelfile
from medchat_export.staging import check_space, check_target, staged

_TYPES = ("F16", "Q8_0", "Q4_0")
#: Bytes of a number of each type, scales included.
_WIDTHS = {"F16": 2.0, "Q8_0": 1.07, "Q4_0": 0.57}
_WEIGHTS_NAME = "model.gguf"

type_flag = click.option(
    "--type",
    "kind",
    type=click.Choice(_TYPES),
    default="Q8_0",
    show_default=True,
    help=say("权重的类型", "what the weights become"),
)


@click.command(
    "gguf",
    cls=LocalizedCommand,
    help=say(
        "把 LLaMA、Bloom、活字（连同适配器）转换为 llama.cpp 的 GGUF 文件。",
        "Convert LLaMA, Bloom or Huozi, adapters merged, to a GGUF file for llama.cpp.",
    ),
)
@model_flags
@type_flag
@target_flags
def gguf(output: str, kind: str, overwrite: bool, **flags: Any) -> int:
    """Write the file."""
    resolved, target = _checked(flags, output, kind, overwrite)
    pattern = pattern_of(resolved.template)
    if pattern is None:
        click.echo(_no_pattern(resolved), err=True)
    with staged(target, folder=False, overwrite=overwrite) as file:
        _write(resolved, file, kind, target.stem, pattern, _exact_type(flags))
    report(target)
    return 0


@click.command(
    "ollama",
    cls=LocalizedCommand,
    help=say(
        "写出 Ollama 用的目录：GGUF 权重、Modelfile、模型卡。",
        "Write a folder for Ollama: GGUF weights, Modelfile, model card.",
    ),
)
@model_flags
@type_flag
@target_flags
def ollama(output: str, kind: str, overwrite: bool, **flags: Any) -> int:
    """Write the folder."""
    resolved, target = _checked(flags, output, kind, overwrite)
    pattern = pattern_of(resolved.template)
    if pattern is None:
        raise UsageError(_no_pattern(resolved), "--template NAME")
    parts = parts_of(resolved)
    modelfile = Modelfile(
        _WEIGHTS_NAME,
        pattern,
        resolved.generation,
        resolved.template.stop,
        str(flags.get("system") or ""),
        joined_licence(parts),
    ).text()
    with staged(target, folder=True, overwrite=overwrite) as folder:
        _write(resolved, folder / _WEIGHTS_NAME, kind, target.name, pattern, _exact_type(flags))
        write_whole_file(folder / "Modelfile", modelfile)
        remark = (f"转换为 GGUF，权重类型 {kind}", f"converted to GGUF, weights as {kind}")
        write_whole_file(folder / "README.md", exported_card(target.name, resolved, parts, remarks=[remark]))
    click.echo(
        say(
            "注意：在 Ollama 里，问题中写出的特殊标记会被当作真的标记；Ollama 不显示红旗提示和免责声明",
            "Note: Ollama takes special tokens that are typed in a question for real ones, and shows neither warnings "
            "of emergencies nor the disclaimer",
        ),
        err=True,
    )
    click.echo(say("使用：", "to use it: ") + f"ollama create NAME -f {target}/Modelfile", err=True)
    report(target)
    return 0


def _checked(flags: dict[str, Any], output: str, kind: str, overwrite: bool) -> tuple[ResolvedModel, Path]:
    """Check all that takes no weights; return the model and where the result goes."""
    require_extra("export", "gguf")
    from medchat_export.gguf_file import require_known, stated_config

    resolved, target = resolve_model(flags), user_path(output)
    require_known(stated_config(resolved.options.model), resolved.options.model)
    check_target(target, resolved.options, overwrite=overwrite)
    numbers = parameters_of(resolved)
    check_space(target, round(numbers * (_WIDTHS[kind] + DTYPES[_exact_type(flags)])))
    return resolved, target


def _exact_type(flags: dict[str, Any]) -> str:
    """Return the type to merge in on the way: bfloat16 is coarser than what it becomes."""
    return "float16" if weights_type(flags.get("dtype")) == "float16" else "float32"


def _write(
    resolved: ResolvedModel, file: Path, kind: str, name: str, pattern: ConversationPattern | None, dtype: str
) -> None:
    from medchat_export.gguf_file import Labels, write_gguf

    labels = Labels(name, joined_licence(parts_of(resolved)), as_jinja(pattern) if pattern else "")
    # Beside the result: in the system's folder for such things there may be no room for weights.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as beside:
        merge_into(resolved, Path(beside), dtype)
        write_gguf(Path(beside), file, kind, labels, _progress)
    _progress(0, 0)


def _progress(done: int, whole: int) -> None:
    if not sys.stderr.isatty():
        return
    if not whole:
        click.echo("", err=True)
        return
    click.echo(say(f"\r正在写入张量 {done}/{whole}", f"\rwriting tensor {done}/{whole}"), nl=False, err=True)


def _no_pattern(resolved: ResolvedModel) -> str:
    name = resolved.template.name
    return say(
        f"模板 {name} 不是固定文字的重复，别的程序无法表示",
        f"template {name} is no repeated pattern that others can write",
    )
