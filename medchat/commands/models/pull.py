"""`medchat models pull`: the one command besides the remote backbone that uses the network."""

from __future__ import annotations

from pathlib import Path

import click

from medchat.api import KnownWeights
from medchat.chat.model_choice import known_weights, open_registry
from medchat.chat.setup import read_settings
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.cli.signals import Stopped
from medchat.commands.models.pull_progress import show_pull
from medchat.errors import CheckpointError, UsageError
from medchat.language import current_language, say
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.units import amount
from medchat.user_paths import user_path
from medchat.weights.catalogue import Catalogue, Entry
from medchat.weights.download import DownloadPlan, plan_download, pull
from medchat.weights.folders import folder_of
from medchat.weights.hub import Hub, offline_variable
from medchat.weights.modelscope import ModelScope
from medchat.weights.source import Source

SOURCES = ("huggingface", "modelscope")


@click.command(
    "pull",
    cls=LocalizedCommand,
    help=say(
        "下载权重并逐个文件校验；中断后再运行同一条命令，从断点继续。",
        "Fetch weights and check every file; after an interruption the same command goes on.",
    ),
)
@click.argument("name", metavar="NAME")
@click.option(
    "--revision",
    metavar="REVISION",
    help=say("另一个版本：分支、标签或提交号", "another version: branch, tag or commit"),
)
@click.option("--dir", "folder", metavar="DIR", help=say("下载到这个目录", "download into this folder"))
@click.option(
    "--from",
    "origin",
    type=click.Choice(SOURCES),
    default=SOURCES[0],
    help=say("下载来源", "where to download from"),
)
@click.option(
    "--repo",
    metavar="OWNER/NAME",
    help=say(
        "改用这个仓库，仍按公布的校验和核对",
        "another repository with these weights; the published checksums still count",
    ),
)
@click.option("--offline", is_flag=True, default=None, help=say("不使用网络", "never use the network"))
def command(
    name: str, revision: str | None, folder: str | None, origin: str, repo: str | None, offline: bool | None
) -> int:
    """Fetch the weights of that name."""
    settings = read_settings({"offline": offline})
    _refuse_offline(settings)
    catalogue = known_weights(open_registry(settings))
    entry = _entry(name, catalogue)
    target = user_path(folder) if folder else folder_of(entry.known.name)
    repository = repo or _repository(entry.known, origin, target)
    source: Source = ModelScope() if origin == "modelscope" else Hub()
    with show_pull() as watcher:
        planned = plan_download(entry.known, source, repository, revision, target, catalogue, watcher)
        watcher.tell(_announced(planned))
        watcher.begin(planned.total, planned.present)
        try:
            pull(planned, watcher)
        except (KeyboardInterrupt, Stopped):
            watcher.tell(
                say(
                    "已停止；再运行同一条命令，从断点继续", "stopped; run the same command to go on from here"
                )
            )
            raise
    for line in _afterwards(entry, planned, named=folder is None):
        say_aside(line)
    return write_out(f"{sanitize_line(str(target), 4096)}\n")


def _refuse_offline(settings: Settings) -> None:
    variable = offline_variable()
    if not (settings.value("offline") or variable):
        return
    because = variable or say("--offline 或设置 offline", "--offline or the setting offline")
    raise UsageError(
        say(f"下载需要网络，而 {because} 禁止联网", f"a download needs the network, which {because} forbids"),
        say(
            "去掉它再试；或手动下载：medchat models show 名称",
            "remove it, or download by hand: medchat models show NAME",
        ),
    )


def _entry(name: str, catalogue: Catalogue) -> Entry:
    entry = catalogue.find(name)
    if entry is None:
        near = ", ".join(catalogue.near(name))
        see = say("查看全部：medchat models list", "to see them all: medchat models list")
        raise CheckpointError(
            say("没有这个名称的权重", "no known weights have this name"),
            (say(f"是不是想用：{near}；", f"did you mean: {near}; ") if near else "") + see,
            where=name,
        )
    return entry


def _repository(known: KnownWeights, origin: str, target: Path) -> str:
    """Return the source's repository of the weights. Raises CheckpointError if they need a manual download."""
    if origin == "modelscope":
        if known.modelscope:
            return known.modelscope
        raise CheckpointError(
            say(
                f"没有 {known.name} 在 ModelScope 上的记录",
                f"no place on ModelScope is known for {known.name}",
            ),
            f"medchat models pull {known.name} --from modelscope --repo OWNER/NAME",
        )
    if known.repository:
        return known.repository
    links = say(" 或 ", " or ").join(known.by_hand or (known.source,))
    note = known.note.get(current_language(), "")
    raise CheckpointError(
        say(f"{known.name} 只能手动下载：{links}", f"{known.name} must be fetched by hand: {links}")
        + (say(f"（{note}）", f" ({note})") if note else ""),
        say(
            f"下载并解压到 {target}，然后：medchat models verify {known.name}",
            f"fetch and unpack it into {target}, then: medchat models verify {known.name}",
        ),
    )


def _announced(planned: DownloadPlan) -> str:
    files, total = len(planned.files), amount(planned.total)
    place = sanitize_line(
        f"{planned.source.address}/{planned.listing.repository}@{planned.listing.revision[:12]}", 200
    )
    had = amount(planned.present)
    free = amount(planned.free)
    target = sanitize_line(str(planned.folder), 200)
    checked = say("按公布的校验和核对", "checked against the published checksums")
    if not planned.held:
        checked = say(
            "不是公布的那个版本，只按来源的校验和核对",
            "not the published version: checked only against the source's own checksums",
        )
    return say(
        f"{place}\n  {files} 个文件，{total}（已有 {had}）→ {target}，磁盘剩余 {free}；{checked}",
        f"{place}\n  {files} files, {total} ({had} already here) → {target}, {free} free; {checked}",
    )


def _afterwards(entry: Entry, planned: DownloadPlan, *, named: bool) -> list[str]:
    known = entry.known
    name = known.name if named else sanitize_line(str(planned.folder), 200)
    if known.kind == "adapter":
        base = known.fits[0] if known.fits else say("底座", "BASE")
        use = f"medchat chat --backbone {entry.backbone} --model {base} --adapter {name}"
    else:
        use = f"medchat chat --backbone {entry.backbone} --model {name}"
    lines = [say(f"完成。对话：{use}", f"done. chat: {use}")]
    if note := known.note.get(current_language(), ""):
        lines.append(say("！", "! ") + sanitize_line(note, 300))
    licence = sanitize_line(known.licence, 120)
    lines.append(say(f"许可：{licence}", f"licence: {licence}"))
    return lines
