"""Which files of a folder are the checkpoint, and whether they may be opened at all.

Standard library only, so that `models show` can look at a folder without torch. The tensors inside are
`headers` (what they are) and `load_weights` (what they hold).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from medchat.checkpoints.elsewhere import file_given, other_than_asked
from medchat.checkpoints.foreign import quantised_config
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.json_object import broken_json, read_json_object
from medchat.checkpoints.weight_files import Checkpoint, WeightFormat, fault_of, link_fault, names
from medchat.errors import CheckpointError
from medchat.language import say

Candidates = tuple[tuple[str, WeightFormat], ...]

#: Weight files of a model in order of preference: the safe format first, a single file before shards.
MODEL_FILES: Candidates = (
    ("model.safetensors", "safetensors"),
    ("model.safetensors.index.json", "safetensors"),
    ("pytorch_model.bin", "bin"),
    ("pytorch_model.bin.index.json", "bin"),
)
#: Bytes of a file's name in any file system that is in use.
_LONGEST_NAME = 255


def open_checkpoint(folder: Path, candidates: Candidates = MODEL_FILES, flag: str = "--model") -> Checkpoint:
    """Find the weight files of `folder`: the first of `candidates` that is there complete.

    Incomplete are a git-lfs pointer, an empty or cut file, text, an index that lacks a shard. What was passed
    over for a later set is in the notes. `flag` is where the user named the folder. Raises CheckpointError,
    for the first set where none is complete.
    """
    require_folder(folder, flag)
    present = [(folder / name, form) for name, form in candidates if os.path.lexists(folder / name)]
    faults: list[CheckpointError] = []
    for path, form in present:
        try:
            found = _from_index(folder, path, form) if path.suffix == ".json" else _single(folder, path, form)
            if len(present) > 1:
                _require_tensors(found)
        except _OutsideError as error:
            raise error.refusal from None
        except CheckpointError as error:
            faults.append(error)
            continue
        return replace(found, notes=tuple(_passed_over(error, path) for error in faults))
    if faults:
        raise faults[0]
    raise _no_weights(folder, [name for name, _ in candidates if not name.endswith(".json")], flag)


def has_weights(folder: Path) -> bool:
    """Whether the folder holds a weight file, complete or not, under one of the usual names."""
    return any(os.path.lexists(folder / name) for name, _ in MODEL_FILES)


def require_folder(folder: Path, flag: str = "--model") -> None:
    """Raise CheckpointError unless `folder`, which the user named by `flag`, is a folder."""
    if folder.is_dir():
        return
    if folder.exists():
        raise file_given(folder, flag)
    raise CheckpointError(
        say("找不到这个目录", "no such folder"),
        say(
            f"请检查 {flag} 的路径；手头没有权重时可先运行 medchat demo",
            f"check {flag}; without any weights, medchat demo still works",
        ),
        where=str(folder),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` of a checkpoint folder. Raises CheckpointError if missing or damaged."""
    require_folder(folder)
    path = folder / "config.json"
    if not path.exists():
        raise other_than_asked(folder, "--model") or CheckpointError(
            say(
                "这个目录不是模型：缺少 config.json",
                "this folder is not a checkpoint: config.json is missing",
            ),
            say("请检查 --model 的路径，或重新下载 config.json", "check --model, or fetch config.json again"),
            where=str(folder),
        )
    stated = read_json_object(path)
    if refusal := quantised_config(stated, path):
        raise refusal
    return stated


def readable_config(folder: Path) -> dict[str, Any] | None:
    """Return `config.json` of a folder that may be anything's, None if there is none that can be read."""
    try:
        return read_config(folder) if (folder / "config.json").is_file() else None
    except (CheckpointError, OSError):
        return None


def unrecognised(folder: Path, flag: str) -> CheckpointError | None:
    """Return why no backbone knows a folder: its config.json, or what it is instead; None if nothing tells."""
    if found := other_than_asked(folder, flag):
        return found
    if flag != "--model" and not (folder / "config.json").is_file():
        return None  # it may be meant as an adapter
    try:
        stated = read_config(folder)
    except CheckpointError as error:
        return error
    kind = stated.get("model_type")
    return _unknown_kind(kind, folder) if isinstance(kind, str) and kind else None


def _unknown_kind(kind: str, folder: Path) -> CheckpointError:
    return CheckpointError(
        say(
            f"没有插件认识这种模型（model_type {kind[:60]}）",
            f"no plugin knows this kind of model (model_type {kind[:60]})",
        ),
        say(
            "安装支持它的插件（已有的：medchat plugins list），或自己写一个："
            "medchat plugins new 名称 --family transformers；或由 vLLM 等程序提供服务，用 --backbone remote 连接",
            "install a plugin that does (those here: medchat plugins list), or write one: medchat plugins new NAME"
            " --family transformers; or serve it by vLLM or the like and use --backbone remote",
        ),
        where=str(folder),
    )


class _OutsideError(Exception):
    """An index that leads out of its folder: no reason to try the next set, but to stop."""

    def __init__(self, refusal: CheckpointError) -> None:
        super().__init__(refusal.what)
        self.refusal = refusal


def _single(folder: Path, path: Path, form: WeightFormat) -> Checkpoint:
    if fault := fault_of(path):
        raise fault
    return Checkpoint(folder, form, (path,))


def _from_index(folder: Path, index: Path, form: WeightFormat) -> Checkpoint:
    table = read_json_object(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise broken_json(index, "weight_map", str(index))
    shards = {name: _shard(folder, name, index) for name in dict.fromkeys(table.values())}
    missing = [name for name, path in shards.items() if not path.exists()]
    if missing:
        raise CheckpointError(
            say(
                f"缺少分片 {names(missing)}（共 {len(shards)} 个）",
                f"missing shard {names(missing)} (of {len(shards)} in all)",
            ),
            say("请下载缺少的文件，放到同一目录", "download what is missing into the same folder"),
            where=str(folder),
        )
    for path in shards.values():
        if fault := fault_of(path):
            raise fault
    placed = {name: shards[shard] for name, shard in table.items()}
    return Checkpoint(folder, form, tuple(shards.values()), index, placed)


def _shard(folder: Path, name: str, index: Path) -> Path:
    """Return the shard's path. A name with a path in it, or a link out of the folder, is refused."""
    if not _is_plain(name):
        shown = repr(name)[:120]
        raise _OutsideError(
            CheckpointError(
                say(
                    f"索引里的分片名 {shown} 指向目录之外",
                    f"the index names a shard outside the folder: {shown}",
                ),
                say(
                    "索引可能被改动过：请从可信来源重新下载",
                    "the index may have been tampered with: fetch it again from a source you trust",
                ),
                where=str(index),
            )
        )
    path = folder / name
    if fault := link_fault(folder, path):
        raise _OutsideError(fault)
    return path


def _is_plain(name: str) -> bool:
    """Say whether `name` can be that of a file in the folder itself."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0:"):
        return False
    try:
        return len(os.fsencode(name)) <= _LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _require_tensors(found: Checkpoint) -> None:
    """Raise CheckpointError for a set whose files are cut, or hold nothing."""
    if not read_headers(found):
        raise CheckpointError(
            say(f"{found.files[0].name} 里没有权重", f"{found.files[0].name} holds no weights"),
            say("请重新下载这个文件", "download the file again"),
            where=str(found.files[0]),
        )


def _passed_over(fault: CheckpointError, used: Path) -> str:
    return say(f"{fault.what}；改用 {used.name}", f"{fault.what}; using {used.name} instead")


def _no_weights(folder: Path, wanted: list[str], flag: str) -> CheckpointError:
    if found := other_than_asked(folder, flag):
        return found
    present = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".safetensors", ".bin"))
    if present:
        suffixes = {Path(name).suffix for name in present}
        usual = next((name for name in wanted if Path(name).suffix in suffixes), wanted[0])
        return CheckpointError(
            say(
                f"目录里有 {names(present)}，但没有列出它们的索引（*.index.json）",
                f"the folder holds {names(present)} but no index of them (*.index.json)",
            ),
            say(
                f"请补上索引；单个文件应命名为 {usual}",
                f"add the index; a single file must be named {usual}",
            ),
            where=str(folder),
        )
    return CheckpointError(
        say("这个目录里没有权重文件", "this folder holds no weights"),
        say(
            f"需要 {' 或 '.join(wanted)}；请检查 {flag} 的路径",
            f"it needs {' or '.join(wanted)}; check {flag}",
        ),
        where=str(folder),
    )
