"""Files are opened without waiting for them, and read up to a stated size."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from medchat.language import LANGUAGES, set_language
from medchat.regular_files import NotRegularError, TooLargeError, open_regular, read_regular


def make_socket(path: Path) -> None:
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(path.parent)  # the length of a socket's path is limited
        bound.bind(path.name)
    finally:
        os.chdir(here)
        bound.close()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (make_socket, "a socket"),
    "folder": (Path.mkdir, "a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), "a device"),
    "link to a pipe": (
        lambda path: (os.mkfifo(path.with_suffix(".p")), path.symlink_to(path.with_suffix(".p"))),
        "a named pipe",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_at_once_and_named(tmp_path: Path, kind: str) -> None:
    make, named = ODD[kind]
    path = tmp_path / "odd"
    make(path)
    words = []
    for language in LANGUAGES:
        set_language(language)
        before = time.monotonic()
        try:
            with pytest.raises(NotRegularError) as info:
                open_regular(path, most=10)
        finally:
            set_language("zh")
        assert time.monotonic() - before < 1
        assert info.value.filename == str(path)
        words.append(info.value.strerror)
    assert named in words[1] and words[0] != words[1]


def test_a_file_of_its_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2048)
    assert read_regular(path, 2048) == b"x" * 2048
    for read in (lambda: read_regular(path, 2047), lambda: open_regular(path, most=2047)):
        with pytest.raises(TooLargeError, match="KiB"):
            read()


def test_a_huge_file_is_refused_by_its_size_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(TooLargeError, match="1 MiB"):
        read_regular(path, 2**20)


def test_a_file_that_states_no_size_is_read_up_to_the_limit() -> None:
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("only Linux has such files")
    assert path.stat().st_size == 0
    assert read_regular(path, 2**24)
    with pytest.raises(TooLargeError):
        read_regular(path, 10)


def test_a_missing_or_unreadable_file_fails_as_it_always_did(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 10)
    with pytest.raises(ValueError, match="null"):
        read_regular("a\0b", 10)


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_reading_takes_what_the_file_has_and_not_what_its_limit_allows(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * size)
    tracemalloc.start()
    try:
        content = read_regular(path, 2**30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert content == b"x" * size and peak < 2**20
