"""Files written whole: what is there after a failure, who may read them, and what may not be written over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medchat.disk import output_error
from medchat.errors import UsageError
from medchat.language import in_language
from medchat.whole_file import check_output_file, staged_output, write_whole_file


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


@pytest.mark.parametrize("folder", [True, False])
def test_a_staged_output_is_whole_or_not_there(tmp_path: Path, folder: bool) -> None:
    output = tmp_path / "new" / "out"
    with pytest.raises(RuntimeError), staged_output(output, folder=folder) as place:
        (place / "part" if folder else place).write_text("half", encoding="utf-8")
        raise RuntimeError
    assert list(output.parent.iterdir()) == []
    with staged_output(output, folder=folder) as place:
        file = place / "whole" if folder else place
        file.write_text("all", encoding="utf-8")
        file.chmod(0o600)
        assert not output.exists()
    written = output / "whole" if folder else output
    assert written.read_text(encoding="utf-8") == "all" and list(output.parent.iterdir()) == [output]
    before = os.umask(0o022)
    os.umask(before)
    assert written.stat().st_mode & 0o777 == 0o666 & ~before


@pytest.mark.parametrize("there", ["file", "folder", "link"])
@pytest.mark.parametrize("folder", [True, False])
def test_what_came_there_meanwhile_is_replaced_only_if_asked(
    tmp_path: Path, there: str, folder: bool
) -> None:
    output = tmp_path / "out"
    with pytest.raises(FileExistsError), staged_output(output, folder=folder):
        _put_something(output, there)
    assert _is_something(output, there) and list(tmp_path.iterdir()) == [output]
    with staged_output(output, folder=folder, replace=True) as place:
        (place / "new" if folder else place).write_text("", encoding="utf-8")
    assert not output.is_symlink() and output.is_dir() == folder and list(tmp_path.iterdir()) == [output]


def _put_something(output: Path, kind: str) -> None:
    if kind == "folder":
        output.mkdir()
        (output / "theirs").touch()
    elif kind == "link":
        output.symlink_to("nowhere")
    else:
        output.write_text("theirs", encoding="utf-8")


def _is_something(output: Path, kind: str) -> bool:
    return {"folder": (output / "theirs").exists, "link": output.is_symlink, "file": output.is_file}[kind]()


def test_an_empty_folder_is_filled_without_asking_and_a_private_one_is_private(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with staged_output(output, folder=True, private=True) as place:
        (place / "file").touch(0o640)
    assert output.stat().st_mode & 0o777 == 0o700 and (output / "file").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_program_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    output = tmp_path / "out[1]"
    process = os.fork()
    if not process:
        with staged_output(output, folder=True) as place:
            (place / "half").touch()
            os._exit(9)
    os.waitpid(process, 0)
    (left,) = tmp_path.iterdir()
    with staged_output(output, folder=True) as place:
        assert left.exists()  # one made this moment might not be locked yet
        others = tmp_path / ".out[2].00000000.partial"
        others.mkdir()
        for folder in (left, others, place.parent):
            os.utime(folder, (0, 0))
        with staged_output(output, folder=True):
            pass
        assert not left.exists() and place.exists() and others.exists()
        output.rmdir()
    assert sorted(tmp_path.iterdir()) == [others, output]
