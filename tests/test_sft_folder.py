"""A checkpoint folder appears whole or not at all, and says later whether it still is what was written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from medchat.errors import CheckpointError, UsageError
from medchat.torchside.sft.manifest import verify_manifest, write_manifest
from medchat.torchside.sft.partial_folder import partial_folder

ROOT = Path(__file__).resolve().parent.parent


def test_the_folder_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    with partial_folder(output) as folder:
        (folder / "a").write_text("1")
        assert not output.exists()
    assert (output / "a").read_text() == "1"
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), partial_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("1")
    with pytest.raises(UsageError) as caught, partial_folder(tmp_path / "out"):
        pass
    assert "out" in caught.value.where
    (tmp_path / "file").write_text("2")
    with pytest.raises(UsageError), partial_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "out" / "mine").read_text() == "1"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with partial_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "out" / "a").exists()


def test_a_killed_run_leaves_no_output_and_the_next_run_clears_its_remains(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from medchat.torchside.sft.partial_folder import partial_folder
        with partial_folder(Path(sys.argv[1])) as folder:
            (folder / "weights").write_bytes(b"x" * 100000)
            print("writing", flush=True)
            time.sleep(60)
        """
    )
    output = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(output)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == b"writing\n"
        with pytest.raises(UsageError), partial_folder(output):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not output.exists()
    assert list(tmp_path.rglob("weights"))
    with partial_folder(output) as folder:
        assert list(folder.iterdir()) == []
        (folder / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "out"]


def written(folder: Path) -> Path:
    (folder / "sub").mkdir()
    (folder / "weights").write_bytes(os.urandom(1000))
    (folder / "sub" / "words").write_text("词表", encoding="utf-8")
    write_manifest(folder, {"method": "full"})
    return folder


def test_an_untouched_folder_verifies(tmp_path: Path) -> None:
    manifest = verify_manifest(written(tmp_path))
    assert manifest["method"] == "full"
    assert set(manifest["files"]) == {"weights", "sub/words"}
    assert manifest["files"]["weights"]["bytes"] == 1000


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_changed_file_is_named(tmp_path: Path, harm: str) -> None:
    weights = written(tmp_path) / "weights"
    content = weights.read_bytes()
    if harm == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "truncate":
        weights.write_bytes(content[:-1])
    else:
        weights.unlink()
    with pytest.raises(CheckpointError) as caught:
        verify_manifest(tmp_path)
    assert "weights" in caught.value.what


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": {"a": 1}}', '{"files": []}'])
def test_a_broken_manifest_is_an_error_of_its_own(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError):
        verify_manifest(tmp_path)


def test_waiting_for_the_lock_does_not_leave_a_lock_behind(tmp_path: Path) -> None:
    started = time.monotonic()
    with partial_folder(tmp_path / "out"), pytest.raises(UsageError), partial_folder(tmp_path / "out"):
        pass
    assert time.monotonic() - started < 5
    assert (tmp_path / "out").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
