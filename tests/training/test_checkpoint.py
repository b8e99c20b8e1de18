"""Checkpoints and manifests: nothing half-written counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medchat.checkpoints.manifest import verify_manifest, write_manifest
from medchat.errors import CheckpointError
from medchat.training import checkpoint as checkpoints

# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    with checkpoints.new_checkpoint(tmp_path, 7) as folder:
        (folder / "weights").write_bytes(b"1")
        assert checkpoints.listed(tmp_path) == []
    (one,) = checkpoints.listed(tmp_path)
    assert (
        one == checkpoints.TrainingCheckpoint(7, tmp_path / "step-00000007") == checkpoints.newest(tmp_path)
    )
    with pytest.raises(OSError), checkpoints.new_checkpoint(tmp_path, 8):
        raise OSError
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, harm: str) -> None:
    for step in (5, 10):
        with checkpoints.new_checkpoint(tmp_path, step) as folder:
            (folder / "weights").write_bytes(os.urandom(100))
    newest = tmp_path / "step-00000010"
    content = (newest / "weights").read_bytes()
    if harm == "flip":
        (newest / "weights").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "truncate":
        (newest / "weights").write_bytes(content[:-1])
    elif harm == "remove":
        (newest / "weights").unlink()
    else:
        (newest / "manifest.json").unlink()
    damaged: list[CheckpointError] = []
    found = checkpoints.newest(tmp_path, damaged)
    assert found is not None and found.step == 5
    assert [str(newest) in error.where for error in damaged] == [True]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        with checkpoints.new_checkpoint(tmp_path, step):
            pass
    checkpoints.remove_old(tmp_path, 2, 5, 20)
    assert [checkpoint.step for checkpoint in checkpoints.listed(tmp_path)] == [5, 15, 20]
    checkpoints.remove_old(tmp_path, 1, None, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000020"]


def test_a_damaged_checkpoint_of_later_never_pushes_out_what_was_written_since(tmp_path: Path) -> None:
    """A run that passed it over continues from an earlier step and saves before it gets there again."""
    for step in (10, 30):
        with checkpoints.new_checkpoint(tmp_path, step):
            pass
    (tmp_path / "step-00000030" / "manifest.json").write_text("{")
    with checkpoints.new_checkpoint(tmp_path, 20):
        pass
    checkpoints.remove_old(tmp_path, 1, None, 20)
    newest = checkpoints.newest(tmp_path)
    assert newest is not None and newest.step == 20
    assert [checkpoint.step for checkpoint in checkpoints.listed(tmp_path)] == [20]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with checkpoints.new_checkpoint(tmp_path, 1) as folder:
            (folder / "weights").write_text(content)
    assert (tmp_path / "step-00000001" / "weights").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------- manifests


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
