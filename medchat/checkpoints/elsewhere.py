"""What to say where a path is not the model or adapter that was requested: what it is, or where that lies.

One place for `--model`, `--adapter` and `models show`. Looks at names three levels down and never inside
weights. No torch here.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from medchat.checkpoints.foreign import foreign_file, foreign_in
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.regular_files import read_regular

ADAPTER_CONFIG = "adapter_config.json"
_PREFIXES = ("prefix_encoder.safetensors", "prefix_encoder.bin")
#: Folders that are looked into, and entries of each: what people keep beside a model is far less.
_MOST_FOLDERS, _MOST_ENTRIES = 200, 2000
_DEPTH = 3
_COMMIT_BYTES = 100


def file_given(path: Path, flag: str) -> CheckpointError:
    """Return the error for a file where `flag` wants a folder."""
    parent = shlex.quote(str(path.parent))
    return foreign_file(path) or CheckpointError(
        say("这是一个文件，不是目录", "this is a file, not a folder"),
        say(f"请改用它所在的目录：{flag} {parent}", f"pass its folder instead: {flag} {parent}"),
        where=str(path),
    )


def other_than_asked(folder: Path, flag: str) -> CheckpointError | None:
    """Return what a folder is that lacks what `flag` asks for, with what to type; None if nothing tells.

    `flag` is `--model`, `--adapter`, or the command that takes either.
    """
    wants_adapter = flag == "--adapter"
    here = _listed(folder)
    if flag.startswith("--") and _is(here, "", not wants_adapter) and not _is(here, "", wants_adapter):
        return _other_kind(folder, wants_adapter)
    below = list(_below(folder))
    fitting = [one for one in below if _is(_listed(one), one.name, wants_adapter)]
    if not flag.startswith("--"):
        fitting += [one for one in below if one not in fitting and _is(_listed(one), one.name, True)]
    if fitting:
        return _further_down(folder, fitting, flag, wants_adapter)
    if found := foreign_in(folder, here):
        return found
    others = [one for one in below if _is(_listed(one), one.name, not wants_adapter)]
    if others:
        return _further_down(folder, others, "--model" if wants_adapter else "--adapter", not wants_adapter)
    return next((found for one in below if (found := foreign_in(one, _listed(one)))), None)


def _is(entries: set[str], name: str, adapter: bool) -> bool:
    """Say whether a folder called `name` with these entries is an adapter, or else a model."""
    if adapter:
        # A checkpoint of the original P-tuning script looks like a model's.
        return (
            ADAPTER_CONFIG in entries
            or not entries.isdisjoint(_PREFIXES)
            or (name.startswith("checkpoint-") and "config.json" in entries)
        )
    return "config.json" in entries and ADAPTER_CONFIG not in entries


def _listed(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)}
    except OSError:
        return set()


def _below(folder: Path) -> Iterator[Path]:
    """Yield the folders one to three levels down, the nearer first; a hub cache's `snapshots` is no level."""
    level, looked = [(folder, 0)], 0
    while level:
        deeper = []
        for parent, depth in level:
            for name in sorted(_listed(parent), key=_newest_first):
                child = parent / name
                if name.startswith(".") or looked >= _MOST_FOLDERS or not child.is_dir():
                    continue
                looked += 1
                yield child
                own = depth if name == "snapshots" else depth + 1
                if own < _DEPTH:
                    deeper.append((child, own))
        level = deeper


def _newest_first(name: str) -> tuple[int, str]:
    number = re.search(r"(\d{1,18})$", name)
    return (-int(number[1]) if number else 1, name)


def _further_down(folder: Path, found: list[Path], flag: str, adapter: bool) -> CheckpointError:
    chosen = next((one for one in found if one.name == _main_commit(one)), found[0])
    others = [str(one.relative_to(folder)) for one in found if one != chosen]
    adapter = adapter or ADAPTER_CONFIG in _listed(chosen)  # a command that takes either
    what = say("适配器", "adapter") if adapter else say("模型", "model")
    more = ""
    if others:
        more = say(
            f"（另有 {len(others)} 个：{'、'.join(others[:3])}）",
            f" ({len(others)} more: {', '.join(others[:3])})",
        )
    place = shlex.quote(str(chosen))
    return CheckpointError(
        say(
            f"{what}不在这个目录里，而在它下面的 {chosen.relative_to(folder)}{more}",
            f"the {what} is not in this folder but below it, in {chosen.relative_to(folder)}{more}",
        ),
        say(f"请改用：{flag} {place}", f"use: {flag} {place}"),
        where=str(folder),
    )


def _main_commit(snapshot: Path) -> str:
    """Return the commit that a hub cache's `main` is at, "" if `snapshot` is not in one."""
    if snapshot.parent.name != "snapshots":
        return ""
    try:
        return read_regular(snapshot.parent.parent / "refs" / "main", _COMMIT_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        return ""


def _other_kind(folder: Path, wants_adapter: bool) -> CheckpointError:
    place = shlex.quote(str(folder))
    if wants_adapter:
        return CheckpointError(
            say("这是完整的模型，不是适配器", "this is a whole model, not an adapter"),
            say(f"请改用：--model {place}", f"use: --model {place}"),
            where=str(folder),
        )
    return CheckpointError(
        say("这是适配器，不是完整的模型", "this is an adapter, not a whole model"),
        say(f"请改用：--model 底座 --adapter {place}", f"use: --model BASE --adapter {place}"),
        where=str(folder),
    )
