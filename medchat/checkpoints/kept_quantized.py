"""Quantised weights that are kept for the next start: one folder for each, in the cache folder. No torch here.

    CACHE/KEY/model.safetensors    the weights, as `medchat.inference.quantized_file` writes them
    CACHE/KEY/manifest.json        size and SHA-256, and what they were made from

The key is made of the original's files, so weights that were exchanged are quantised again. A folder gets its name when
it is whole; what a killed program left begins with a dot. Names and sizes are trusted, contents are not: a file
is held against the model like any checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medchat.api import QuantizedCache
from medchat.checkpoints.headers import header_bytes
from medchat.checkpoints.manifest import FILE_NAME, MOST_BYTES, write_manifest
from medchat.checkpoints.pickle_machine import DamagedError
from medchat.checkpoints.stated_base import fingerprint_of_models
from medchat.checkpoints.weight_files import Checkpoint
from medchat.regular_files import UNLIMITED, open_regular, read_json
from medchat.whole_file import staged_output

WEIGHTS = "model.safetensors"
#: Raised whenever the same original would give other bytes.
_VERSION = 2
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class KeptWeights:
    """One folder of the cache. `source` is the folder that it was made from, "" where it does not say."""

    folder: Path
    source: str
    quantization: str
    size: int
    used: float


def key_of(checkpoint: Checkpoint, header: bytes) -> str:
    """Return the name for what is made from `checkpoint`, to be written as a file that begins with `header`.

    The same as long as the files of the folder keep their names and sizes, both their ends, and those with weights
    their time of change.
    """
    return _key(_digest_of(checkpoint), header)


def kept_from(cache: QuantizedCache, checkpoint: Checkpoint) -> Iterator[Path]:
    """Yield the folders that hold what was made from `checkpoint` as it is now, the last used first."""
    digest = None
    for kept in reversed(all_kept(cache.folder)):
        with suppress(OSError, DamagedError):
            header = header_bytes(kept.folder / WEIGHTS)
            digest = digest or _digest_of(checkpoint)
            if _key(digest, header) == kept.folder.name:
                yield kept.folder


def mark_used(folder: Path) -> None:
    """Let `folder` be the last to go when room is wanted."""
    with suppress(OSError):  # a cache that cannot be written to still serves
        os.utime(folder)


def _digest_of(checkpoint: Checkpoint) -> hashlib._Hash:
    digest = hashlib.sha256(f"{_VERSION}\0{fingerprint_of_models([checkpoint.folder])}".encode())
    for file in checkpoint.files:
        digest.update(f"\0{file.name}\0{file.stat().st_mtime_ns}".encode())
    return digest


def _key(original: hashlib._Hash, header: bytes) -> str:
    digest = original.copy()
    digest.update(header)
    return digest.hexdigest()[:32]


def find_kept(cache: QuantizedCache, key: str, header: bytes, size: int) -> Path | None:
    """Return the folder kept under `key`: its file begins with `header` and has `size` bytes. None where there is none.

    Counts as a use.
    """
    folder = cache.folder / key
    try:
        with open_regular(folder / WEIGHTS, most=UNLIMITED) as file:
            whole = file.read(len(header)) == header and os.fstat(file.fileno()).st_size == size
    except OSError:
        return None
    mark_used(folder)
    return folder if whole else None


def keep(
    cache: QuantizedCache, key: str, size: int, write: Callable[[Path], None], source: Path, quantization: str
) -> Path:
    """Write a file of `size` bytes by `write` and keep it; return its folder. What was longest unused goes for it.

    Raises OSError, and what `write` raises; then nothing new is there.
    """
    cache.folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    _make_room(cache, size)
    with staged_output(cache.folder / key, folder=True, replace=True, private=True) as folder:
        write(folder / WEIGHTS)
        write_manifest(folder, {"source": str(source.resolve()), "quantization": quantization})
    return cache.folder / key


def all_kept(folder: Path) -> list[KeptWeights]:
    """Return what the cache folder holds, the longest unused first."""
    return sorted(
        (_read(entry) for entry in _entries(folder) if not entry.name.startswith(".")),
        key=lambda kept: kept.used,
    )


def remove_all(folder: Path) -> int:
    """Remove everything in the cache folder, what a killed program left too. Returns the bytes freed."""
    freed = 0
    for entry in list(_entries(folder)):
        freed += _size(entry)
        remove(entry)
    return freed


def remove(folder: Path) -> None:
    """Remove a folder of the cache. A process that has its file mapped keeps it until it ends."""
    shutil.rmtree(folder, ignore_errors=True)


def _make_room(cache: QuantizedCache, size: int) -> None:
    kept = all_kept(cache.folder)
    held = sum(one.size for one in kept)
    for one in kept:
        if held + size <= cache.most_bytes:
            break
        remove(one.folder)
        held -= one.size


def _entries(folder: Path) -> Iterator[Path]:
    with suppress(OSError):  # nothing was kept yet
        yield from (entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _read(folder: Path) -> KeptWeights:
    try:
        stated = read_json(folder / FILE_NAME, MOST_BYTES)
    except (OSError, ValueError):
        stated = None
    stated = stated if isinstance(stated, dict) else {}
    source, quantization = (str(stated.get(key) or "") for key in ("source", "quantization"))
    return KeptWeights(folder, source, quantization, _size(folder), folder.stat().st_mtime)
