"""`medchat models verify`: hashes a folder's files and compares them. No network."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medchat.chat.model_choice import find_adapter, find_model, known_weights, open_registry
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.commands.models.pull_progress import show_pull
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.registry import Registry
from medchat.sanitize import sanitize_line
from medchat.settings import Settings
from medchat.units import amount
from medchat.user_paths import user_path
from medchat.weights.catalogue import Catalogue, Entry
from medchat.weights.folders import folder_of
from medchat.weights.verifying import ChecksumSource, FileVerdict, Verdict, Verification, verify


@click.command(
    "verify",
    cls=LocalizedCommand,
    help=say(
        "重新计算校验和，逐个文件说明：正确、缺失、错误或未知。",
        "Compute the checksums again and say of each file: ok, missing, wrong or unknown.",
    ),
)
@click.argument("model", metavar="PATH|NAME")
@click.option("--json", "as_json_", is_flag=True, help=say("输出 JSON", "print JSON"))
def command(model: str, as_json_: bool) -> int:
    """Check the folder."""
    registry = open_registry(Settings.load())
    catalogue = known_weights(registry)
    folder, entry = _find(model, registry, catalogue)
    with show_pull(say("校验", "checking")) as progress:
        progress.begin(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()))
        found = verify(
            folder, entry.known if entry else None, [one.known for one in catalogue], progress.advance
        )
    write_out(_as_json(found) if as_json_ else _as_text(found))
    if not found.sound:
        raise _unsound(found)
    if not any(file.verdict is Verdict.OK for file in found.files):
        say_aside(
            say(
                "没有公布的校验和可对照，只检查了文件是否齐全",
                "no checksums are known for these files: only their presence was checked",
            )
        )
    return 0


def _find(model: str, registry: Registry, catalogue: Catalogue) -> tuple[Path, Entry | None]:
    """Return the folder, and the published weights that it should hold if the name says so."""
    path = user_path(model)
    entry = None if path.exists() else catalogue.find(model)
    if entry and folder_of(entry.known.name).is_dir():  # also one whose download is incomplete
        return folder_of(entry.known.name), entry
    adapter = entry is not None and entry.known.kind == "adapter"
    folder = find_adapter(model, registry) if adapter else find_model(model, None, registry, either=True)
    if not folder.is_dir():
        raise CheckpointError(
            say("这不是一个目录", "this is not a folder"), "medchat models verify DIR", where=str(folder)
        )
    return folder, entry


def _as_json(found: Verification) -> str:
    whole = {
        "path": str(found.folder),
        "known_as": found.known.name if found.known else None,
        "sound": found.sound,
        "files": [
            {
                "name": file.name,
                "verdict": file.verdict.value,
                "compared_with": file.origin.value or None,
                "bytes": file.size,
                "sha256": file.sha256 or None,
            }
            for file in found.files
        ],
    }
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def _as_text(found: Verification) -> str:
    title = (
        found.known.title if found.known else say("没有公布的权重与它相符", "not known as published weights")
    )
    shown = sanitize_line(title, 100)
    lines = [sanitize_line(str(found.folder), 300) + say(f"（{shown}）", f"  ({shown})")]
    return "\n".join([*lines, *(_line(file) for file in found.files)]) + "\n"


def _line(file: FileVerdict) -> str:
    verdict = {
        Verdict.OK: say("正确", "ok"),
        Verdict.MISSING: say("缺失", "missing"),
        Verdict.WRONG: say("错误", "wrong"),
        Verdict.UNKNOWN: say("未知", "unknown"),
    }[file.verdict]
    origin = {
        ChecksumSource.PUBLISHED: say("公布的校验和", "published checksum"),
        ChecksumSource.RECORDED: say("目录自己的清单", "the folder's own list"),
        ChecksumSource.INDEX: say("索引中列出", "named by the index"),
        ChecksumSource.NOBODY: "",
    }[file.origin]
    words = (verdict, sanitize_line(file.name, 120), amount(file.size) if file.size else "", origin)
    return "  " + "  ".join(word for word in words if word)


def _unsound(found: Verification) -> CheckpointError:
    bad = [file.name for file in found.files if file.verdict in (Verdict.WRONG, Verdict.MISSING)]
    names = ", ".join(bad[:5]) + ("…" if len(bad) > 5 else "")
    name = found.known.name if found.known else ""
    fetch = f"medchat models pull {name}" if name and found.known and found.known.repository else ""
    return CheckpointError(
        say(f"{len(bad)} 个文件缺失或不对：{names}", f"{len(bad)} files are missing or wrong: {names}"),
        fetch or say("重新下载或复制这些文件", "fetch or copy these files again"),
        where=str(found.folder),
    )
