"""Files written whole: what is there after a failure, who may read them, and what may not be written over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medchat.errors import UsageError
from medchat.language import in_language
from medchat.whole_file import check_output_file, output_error, write_whole_file


def test_a_file_is_replaced_whole_and_its_other_names_keep_the_old_content(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("old", encoding="utf-8")
    other.hardlink_to(path)
    write_whole_file(path, "新")
    assert (path.read_text(encoding="utf-8"), other.read_text(encoding="utf-8")) == ("新", "old")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_what_fails_on_the_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "full")

    if step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(os, "fsync" if step == "fsync" else "fdopen", fail)
    with pytest.raises(OSError, match="full"):
        write_whole_file(path, "new")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_synced_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fail_on_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(22, "no such thing here")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    write_whole_file(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"


def test_a_private_file_is_private_whatever_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for private, mode in ((False, 0o640), (True, 0o600), (False, 0o640)):
        before = os.umask(0o027)
        try:
            write_whole_file(path, b"", private=private)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == mode


def test_text_without_a_utf_8_form_and_the_longest_name_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_whole_file(path, "一\ud800")
    assert path.read_text(encoding="utf-8") == "一\\ud800"


def test_an_output_that_is_an_input_is_refused_by_identity(tmp_path: Path) -> None:
    source, hard, soft = (tmp_path / name for name in ("source", "hard", "soft"))
    source.touch()
    hard.hardlink_to(source)
    soft.symlink_to(source)
    for output in (source, hard, soft, tmp_path / "." / "source"):
        with pytest.raises(UsageError, match="--data"):
            check_output_file(output, {"--data": source})
    check_output_file(tmp_path / "new", {"--data": source, "--template": tmp_path / "none"})


def test_a_device_a_pipe_and_a_dangling_link_are_no_output(tmp_path: Path) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(tmp_path / "nowhere")
    for output in (fifo, link, tmp_path, Path(os.devnull)):
        with pytest.raises(UsageError):
            check_output_file(output, {})


@pytest.mark.parametrize(
    ("what", "said"),
    [("", "cannot be written"), ("the table cannot be written", "the table cannot be written")],
)
def test_an_output_that_cannot_be_written_is_named_with_the_cause_and_a_way_out(
    tmp_path: Path, what: str, said: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    output = tmp_path / "file" / "output"
    with pytest.raises(NotADirectoryError) as caught:
        write_whole_file(output, "text")
    with in_language("en"):
        error = output_error(output, caught.value, what)
    assert (error.what, error.where) == (f"{said}: Not a directory", str(output))
    assert "--output" in error.remedy
