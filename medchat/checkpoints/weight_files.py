"""A weight file before anybody looks inside: is it there, is it weights at all, may it be opened. No torch here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medchat.checkpoints.read_once import read_once
from medchat.errors import CheckpointError
from medchat.language import say
from medchat.regular_files import UNLIMITED, open_regular

WeightFormat = Literal["safetensors", "bin"]

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SNIFFED = 512
#: How torch's files begin: a zip, or a pickle by itself.
_PICKLES = (b"PK\x03\x04", *(b"\x80" + bytes((protocol,)) for protocol in range(2, 6)))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weight files of one folder. `placed` is the index's name -> shard table, empty without one.

    `notes` are for the user, in the interface language: which files were passed over for these, and why.
    """

    folder: Path
    format: WeightFormat
    files: tuple[Path, ...]
    index: Path | None = None
    placed: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def file_bytes(self) -> int:
        """Return the size of all weight files together, in bytes."""
        return sum(file.stat().st_size for file in self.files)


def fault_of(path: Path) -> CheckpointError | None:
    """Return why a file that should hold weights cannot: it is empty, holds text, cannot be opened; else None."""
    try:
        start = read_once(first_bytes, path)
    except OSError as error:
        return CheckpointError(
            say(
                f"权重文件 {path.name} 打不开（{error.strerror}）",
                f"weights {path.name} cannot be opened ({error.strerror})",
            ),
            say("请检查这个文件及其权限", "check the file and its permissions"),
            where=str(path),
        )
    if start.startswith(LFS_POINTER):
        return lfs_pointer(path)
    lowered = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if lowered.startswith((b"<!doctype", b"<html", b"<?xml")):
        return _not_weights(path, say("一个网页", "a web page"))
    if not start:
        return _not_weights(path, say("空文件", "an empty file"))
    if is_text(start):
        return _not_weights(path, say("文本", "text"))
    return _misnamed(path, start)


def _misnamed(path: Path, start: bytes) -> CheckpointError | None:
    """Return the refusal of a file in the one format that is named as the other."""
    # A safetensors file begins with the length of its header in eight bytes, and that with a brace.
    is_safe = start[8:9] == b"{" and start[4:8] == bytes(4)
    if path.suffix == ".safetensors" and not is_safe and start.startswith(_PICKLES):
        found, ending = say("torch 的 pickle 格式", "a torch pickle"), ".bin"
        stem = "pytorch_model" if path.stem == "model" else path.stem
    elif path.suffix == ".bin" and is_safe:
        found, ending = say("safetensors 格式", "in the safetensors format"), ".safetensors"
        stem = path.stem.removeprefix("pytorch_")
    else:
        return None
    renamed = f"mv {shlex.quote(str(path))} {shlex.quote(str(path.with_name(stem + ending)))}"
    if "-of-" in path.stem:  # an index lists it by its name
        renamed = say(
            f"请重新下载 {path.suffix} 格式的整套权重",
            f"fetch the whole set in the {path.suffix} format again",
        )
    return CheckpointError(
        say(
            f"{path.name} 的内容是{found}，不是 {path.suffix}",
            f"{path.name} is {found}, not {path.suffix}",
        ),
        renamed,
        where=str(path),
    )


def link_fault(folder: Path, path: Path) -> CheckpointError | None:
    """Return why a shard that is a link may not be followed; None for a plain file and for a hub cache's link.

    The hub's cache keeps each file once, as models--OWNER--NAME/blobs/HASH. Its snapshots link there, as do
    the folders that old versions of its program filled.
    """
    home, target = folder.resolve(), path.resolve()
    if target.parent == home:
        return None
    blobs, repository = target.parent, target.parent.parent
    if blobs.name == "blobs" and repository.name.startswith("models--"):
        return None
    if home.parent.name == "snapshots" and blobs == home.parent.parent / "blobs":
        return None
    source, place = shlex.quote(str(target)), shlex.quote(str(path))
    return CheckpointError(
        say(
            f"分片 {path.name} 是一个链接，指向目录之外：{target}",
            f"shard {path.name} is a link that leads out of the folder: {target}",
        ),
        say(
            f"若信任这个文件，请用它本身替换链接：cp --remove-destination {source} {place}",
            f"if you trust the file, replace the link with the file itself: cp --remove-destination {source} {place}",
        ),
        where=str(path),
    )


def first_bytes(path: Path) -> bytes:
    """Return as much of a file's beginning as tells what kind of file it is. Raises OSError."""
    with open_regular(path, most=UNLIMITED) as file:
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


def lfs_pointer(path: Path) -> CheckpointError:
    """Return the error for a file that git-lfs has yet to fetch."""
    folder = shlex.quote(str(path.parent))
    return CheckpointError(
        say(
            f"{path.name} 只是 git-lfs 指针，文件本身没有下载",
            f"{path.name} is a git-lfs pointer, not the file itself",
        ),
        say(f"请运行：git -C {folder} lfs pull", f"run: git -C {folder} lfs pull"),
        where=str(path),
    )


def names(items: Iterable[str], shown: int = 3) -> str:
    """Return the first few names and the count of all: `a, b, c … (368)`."""
    listed = list(items)
    text = ", ".join(name if len(name) <= 160 else f"{name[:160]}…" for name in listed[:shown])
    return text if len(listed) <= shown else f"{text} … ({len(listed)})"


def _not_weights(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        say(f"{path.name} 不是权重文件，而是{found}", f"{path.name} is not a weight file but {found}"),
        say("请重新下载这个文件", "download the file again"),
        where=str(path),
    )
