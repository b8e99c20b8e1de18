"""`medchat models clean`: remove the quantised weights that were kept for the next start."""

from __future__ import annotations

import click

from medchat.checkpoints.kept_quantized import all_kept, remove_all
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import write_out
from medchat.commands.models.format import kept_line
from medchat.language import say
from medchat.paths import quantized_dir
from medchat.units import amount


@click.command(
    "clean",
    cls=LocalizedCommand,
    help=say(
        "清除为下次启动保存的量化权重，下次用到时重新生成。不影响下载的权重。",
        "Remove quantised weights that were kept for the next start; they are made again when they are needed. "
        "Downloaded weights are left alone.",
    ),
)
@click.option("--dry-run", is_flag=True, help=say("只列出，不清除", "list them, remove nothing"))
def command(dry_run: bool) -> int:
    """List what is kept and remove it."""
    kept = all_kept(quantized_dir())
    lines = [kept_line(one) for one in kept]
    if dry_run:
        total = sum(one.size for one in kept)
        lines.append(say(f"共 {len(kept)} 份，{amount(total)}", f"{len(kept)} in all, {amount(total)}"))
    else:
        freed = remove_all(quantized_dir())
        lines.append(
            say(f"已清除 {len(kept)} 份，释放 {amount(freed)}", f"removed {len(kept)}, {amount(freed)} freed")
        )
    return write_out("\n".join(lines) + "\n")
