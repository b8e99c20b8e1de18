"""`medchat models quantize`: write a model with its linears in int8 or int4, to be mapped at every start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from medchat.api import LoadOptions
from medchat.chat.model_choice import find_model, open_registry, recognize_backbone
from medchat.checkpoints.manifest import write_manifest
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.commands.models.pull_progress import PullProgress, show_pull
from medchat.disk import translate_disk_errors
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.units import amount
from medchat.user_paths import user_path
from medchat.whole_file import staged_output

_THIS = "medchat models quantize"


@click.command(
    "quantize",
    cls=LocalizedCommand,
    help=say(
        "把模型的线性层量化为 int8 或 int4，写成一个完整的模型目录；之后用 --model 加载只需几秒。",
        "Quantise a model's linear layers to int8 or int4 and write a model folder, which --model loads in seconds.",
    ),
)
@click.argument("model", metavar="PATH|NAME")
@click.option("--bits", type=click.Choice(["4", "8"]), required=True, help=say("位数", "width"))
@click.option("--output", metavar="DIR", required=True, help=say("写到哪里", "where it goes"))
@click.option("--backbone", metavar="NAME", help=say("按这个模型家族解读", "read it as this family"))
def command(model: str, bits: str, output: str, backbone: str | None) -> int:
    """Write the folder."""
    registry = open_registry(Settings.load())
    source, target = find_model(model, backbone, registry, flag=_THIS), user_path(output)
    chosen = registry.backbone(backbone) if backbone else recognize_backbone(registry, source, _THIS)
    for line in registry.lines():
        say_aside(line)
    _require_empty(target)
    quantization = f"int{bits}"
    with (
        translate_disk_errors(target, lambda: say("再运行同一条命令", "run the same command again")),
        show_pull(say("量化", "quantising")) as progress,
        staged_output(target, folder=True) as folder,
    ):
        options = LoadOptions(source, quantize=quantization, offline=True, watch=_shown_by(progress))
        chosen.save_quantized(options, folder)
        write_manifest(folder, {"source": str(source.resolve()), "quantization": quantization})
    size = sum(file.stat().st_size for file in target.iterdir())
    return write_out(f"{sanitize_line(str(target))}  {quantization}  {amount(size)}\n")


def _require_empty(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(
            say("不会覆盖已有的内容", "what is there will not be overwritten"),
            say(
                "换一个 --output：不存在的或空的目录",
                "use another --output: an empty folder, or a new one",
            ),
            where=str(target),
        )


def _shown_by(progress: PullProgress) -> Callable[[int, int], None]:
    return lambda read, total: progress.begin(total, read)
