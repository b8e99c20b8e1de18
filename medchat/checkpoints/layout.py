"""Which files of a folder are the checkpoint, and whether they may be opened at all.

Standard library only, so that `models show` can look at a folder without torch. Knows names and
first bytes; the tensors inside are `headers` (what they are) and `load` (what they hold).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medchat.checkpoints.read_once import file_bytes, read_once
from medchat.errors import CheckpointError
from medchat.language import say

WeightFormat = Literal["safetensors", "bin"]

Candidates = tuple[tuple[str, WeightFormat], ...]

#: Weight files of a model in order of preference: the safe format first, a single file before shards.
MODEL_FILES: Candidates = (
    ("model.safetensors", "safetensors"),
    ("model.safetensors.index.json", "safetensors"),
    ("pytorch_model.bin", "bin"),
    ("pytorch_model.bin.index.json", "bin"),
)
_JSON_LIMIT = 64 * 2**20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SNIFFED = 512


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weight files of one folder. `placed` is the index's name -> shard table, empty without one."""

    folder: Path
    format: WeightFormat
    files: tuple[Path, ...]
    index: Path | None = None
    placed: Mapping[str, Path] = field(default_factory=dict)

    @property
    def file_bytes(self) -> int:
        """Return the size of all weight files together, in bytes."""
        return sum(file.stat().st_size for file in self.files)


def open_checkpoint(folder: Path, candidates: Candidates = MODEL_FILES, flag: str = "--model") -> Checkpoint:
    """Find the weight files of `folder` and check that each exists, lies inside and is no text.

    The first of `candidates` that exists is taken. Reads the index and the first bytes of each file.
    `flag` is where the user named the folder. Raises CheckpointError.
    """
    require_folder(folder, flag)
    for name, weight_format in candidates:
        path = folder / name
        if not path.exists():
            continue
        if name.endswith(".json"):
            return _from_index(folder, path, weight_format)
        refuse_text(path)
        return Checkpoint(folder, weight_format, (path,))
    raise _no_weights(folder, [name for name, _ in candidates if not name.endswith(".json")], flag)


def _no_weights(folder: Path, wanted: list[str], flag: str) -> CheckpointError:
    present = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".safetensors", ".bin"))
    if present:
        return CheckpointError(
            say(
                f"文件夹里有 {names(present)}，但没有列出它们的索引（*.index.json）",
                f"the folder holds {names(present)} but no index of them (*.index.json)",
            ),
            say(
                f"请补上索引；单个文件应命名为 {wanted[0]}",
                f"add the index; a single file must be named {wanted[0]}",
            ),
            where=str(folder),
        )
    return CheckpointError(
        say("这个文件夹里没有权重文件", "this folder holds no weights"),
        say(
            f"需要 {' 或 '.join(wanted)}；请检查 {flag} 的路径",
            f"it needs {' or '.join(wanted)}; check {flag}",
        ),
        where=str(folder),
    )


def require_folder(folder: Path, flag: str = "--model") -> None:
    """Raise CheckpointError unless `folder`, which the user named by `flag`, is a folder."""
    if folder.is_dir():
        return
    if folder.exists():
        parent = shlex.quote(str(folder.parent))
        raise CheckpointError(
            say("这是一个文件，不是文件夹", "this is a file, not a folder"),
            say(f"请改用它所在的文件夹：{flag} {parent}", f"pass its folder instead: {flag} {parent}"),
            where=str(folder),
        )
    raise CheckpointError(
        say("找不到这个文件夹", "no such folder"),
        say(
            f"请检查 {flag} 的路径；手头没有权重时可先运行 medchat demo",
            f"check {flag}; without any weights, medchat demo still works",
        ),
        where=str(folder),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` of a checkpoint folder. Raises CheckpointError where missing or damaged."""
    require_folder(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            say(
                "这个文件夹不是模型：缺少 config.json",
                "this folder is not a checkpoint: config.json is missing",
            ),
            say("请检查 --model 的路径，或重新下载 config.json", "check --model, or fetch config.json again"),
            where=str(folder),
        )
    return read_json_object(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a small file, the caller's to change.

    Raises CheckpointError naming the line where it is broken.
    """
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise ValueError(f"larger than {_JSON_LIMIT} bytes")
        text = file_bytes(path).decode("utf-8-sig")
        if text.startswith(_LFS_POINTER.decode()):
            raise _lfs_pointer(path)
        value = json.loads(text, object_pairs_hook=_no_repeats)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except json.JSONDecodeError as error:
        raise _broken_json(path, error.msg, f"{path}:{error.lineno}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _broken_json(path, str(error) or type(error).__name__, str(path)) from None
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} twice")
    return table


def _broken_json(path: Path, reason: str, where: str) -> CheckpointError:
    return CheckpointError(
        say(f"{path.name} 无法读取（{reason}）", f"{path.name} cannot be read ({reason})"),
        say("文件已损坏或下载不完整，请重新获取", "the file is damaged or incomplete: fetch it again"),
        where=where,
    )


def _from_index(folder: Path, index: Path, weight_format: WeightFormat) -> Checkpoint:
    table = read_json_object(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise _broken_json(index, "weight_map", str(index))
    shards = {name: _shard(folder, name, index) for name in dict.fromkeys(table.values())}
    missing = [name for name, path in shards.items() if not path.is_file()]
    if missing:
        raise CheckpointError(
            say(
                f"缺少分片 {names(missing)}（共 {len(shards)} 个）",
                f"missing shard {names(missing)} (of {len(shards)} in all)",
            ),
            say("请下载缺少的文件，放到同一文件夹", "download what is missing into the same folder"),
            where=str(folder),
        )
    for path in shards.values():
        refuse_text(path)
    placed = {name: shards[shard] for name, shard in table.items()}
    return Checkpoint(folder, weight_format, tuple(shards.values()), index, placed)


def _shard(folder: Path, name: str, index: Path) -> Path:
    """Return the shard's path. A name with a path in it, or a link out of the folder, is refused."""
    plain = name not in ("", ".", "..") and not any(sign in name for sign in "/\\\0:")
    path = folder / name if plain else folder
    if not plain or not _stays_inside(folder, path):
        raise CheckpointError(
            say(
                f"索引里的分片名 {name!r} 指向文件夹之外",
                f"the index names a shard outside the folder: {name!r}",
            ),
            say(
                "索引可能被改动过：请从可信来源重新下载",
                "the index may have been tampered with: fetch it again from a source you trust",
            ),
            where=str(index),
        )
    return path


def _stays_inside(folder: Path, path: Path) -> bool:
    home, target = folder.resolve(), path.resolve()
    if target.parent == home:
        return True
    # The Hugging Face cache keeps each file once, as <repo>/blobs/<hash>, and links to it from
    # <repo>/snapshots/<revision>: the one link out of a folder that is part of a published layout.
    return home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"


def refuse_text(path: Path) -> None:
    """Raise CheckpointError if a file that should hold weights is empty or holds text."""
    try:
        start = read_once(first_bytes, path)
    except OSError as error:
        raise CheckpointError(
            say(
                f"权重文件 {path.name} 打不开（{error.strerror}）",
                f"weights {path.name} cannot be opened ({error.strerror})",
            ),
            say("请检查文件权限", "check the file's permissions"),
            where=str(path),
        ) from None
    if start.startswith(_LFS_POINTER):
        raise _lfs_pointer(path)
    lowered = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if lowered.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _not_weights(path, say("一个网页", "a web page"))
    if not start:
        raise _not_weights(path, say("空文件", "an empty file"))
    if is_text(start):
        raise _not_weights(path, say("文本", "text"))


def first_bytes(path: Path) -> bytes:
    """Return as much of a file's beginning as tells what kind of file it is. Raises OSError."""
    with path.open("rb") as file:
        return file.read(_SNIFFED)


def is_text(start: bytes) -> bool:
    """Say whether the first bytes of a file are plain text: UTF-8 (but for a cut end), no control byte."""
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in start):
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def _lfs_pointer(path: Path) -> CheckpointError:
    folder = shlex.quote(str(path.parent))
    return CheckpointError(
        say(
            f"{path.name} 只是 git-lfs 指针，文件本身没有下载",
            f"{path.name} is a git-lfs pointer, not the file itself",
        ),
        say(f"请运行：git -C {folder} lfs pull", f"run: git -C {folder} lfs pull"),
        where=str(path),
    )


def _not_weights(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        say(f"{path.name} 不是权重文件，而是{found}", f"{path.name} is not a weight file but {found}"),
        say("请重新下载这个文件", "download the file again"),
        where=str(path),
    )


def names(items: Iterable[str], shown: int = 3) -> str:
    """Return the first few names and the count of all: `a, b, c … (368)`."""
    listed = list(items)
    text = ", ".join(listed[:shown])
    return text if len(listed) <= shown else f"{text} … ({len(listed)})"
