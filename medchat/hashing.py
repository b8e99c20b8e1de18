"""Checksums of files, with a report of how far the reading is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from medchat.regular_files import UNLIMITED, open_regular

CHUNK = 1 << 20


def sha256_of(file: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return _digest(file, hashlib.sha256(), on_bytes)


def git_blob_of(file: Path) -> str:
    """Return the id that git gives the file: how the hub names the files it does not keep as large ones."""
    start = b"blob %d\0" % file.stat().st_size
    return _digest(file, hashlib.sha1(start, usedforsecurity=False), None)


def _digest(file: Path, digest: hashlib._Hash, on_bytes: Callable[[int], None] | None) -> str:
    with open_regular(file, most=UNLIMITED) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()
