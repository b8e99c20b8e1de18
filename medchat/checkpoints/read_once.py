"""Files of a checkpoint folder, read once in the life of the process. No torch here.

Every call of a backbone gets a folder again (`LoadOptions`), and most need the same small files. What was
read is kept with the file's identity, size and times, and is used again only while all of them are the same:
a file that was written again, or replaced, is read again. Nothing is kept of a file whose times cannot tell a
later change from an earlier one, because it was written a moment ago.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from medchat.regular_files import read_regular, too_large

T = TypeVar("T")

#: How long after a change another one may leave the times as they are: the kernel's clock ticks every
#: 10 ms at the slowest; file systems that store whole seconds, every two seconds (FAT).
_TICK, _COARSE_TICK = 50_000_000, 2_000_000_000
_SECOND = 1_000_000_000
#: Bytes of a vocabulary: Bloom's tokenizer.json, the largest in use, has 14.5 MB.
VOCABULARY_BYTES = 64 * 2**20
#: Files kept at once: several folders of a hundred shards.
_MOST = 512

_kept: OrderedDict[Hashable, Any] = OrderedDict()
_lock = Lock()


def read_once(read: Callable[..., T], path: Path, *arguments: Hashable, beside: Sequence[Path] = ()) -> T:
    """Return `read(path, *arguments)`, kept while neither `path` nor a file of `beside` changes.

    `read` must be a function of a module, its result immutable, and depend on nothing but these files.
    A file that does not exist counts as one of its states. Raises what `read` raises; no error is kept.
    """
    states = tuple(_state(file) for file in (path, *beside))
    if any(state is not None and may_change_unseen(state) for state in states):
        return read(path, *arguments)
    key = (read, str(path), arguments, states)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            found: T = _kept[key]
            return found
    value = read(path, *arguments)
    with _lock:
        _kept[key] = value
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    return value


def file_bytes(path: Path, most: int) -> bytes:
    """Return the content of a small file of at most `most` bytes. Raises OSError (see `read_regular`)."""
    if path.stat().st_size > most:
        raise too_large(path, most)
    return read_once(_content, path)  # kept once, whatever the limits of those who ask


def _content(path: Path) -> bytes:
    return read_regular(path, VOCABULARY_BYTES)


def _state(file: Path) -> tuple[int, ...] | None:
    """Return what changes whenever the file does, its times last; None where it cannot be looked at."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def may_change_unseen(state: tuple[int, ...]) -> bool:
    """Say whether the file was changed so lately that a further change could leave its state as it is."""
    changed = max(state[-2:])
    tick = _TICK if changed % _SECOND else _COARSE_TICK
    return time.time_ns() - changed < tick
