"""The result of a run: whole or not there."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import begun, options

from medchat.api import SFTReport, SFTSample
from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.training import checkpoint as checkpoints
from medchat.training.previous_run import check_output
from medchat.training.run_folder import open_run_folder

REPORT = SFTReport(
    output=Path("unused"),
    steps=4,
    examples=2,
    label_tokens=9,
    first_loss=2.5,
    last_loss=0.5,
    seconds=1.0,
    kind="adapter",
    samples=(SFTSample("问", "答", "前", "后"),),
)


def test_a_finished_run_reports_what_it_did_and_keeps_no_checkpoint(tmp_path: Path) -> None:
    wanted = begun(tmp_path)
    again = replace(wanted, resume=True)
    assert check_output(again) is None
    with open_run_folder(again, "data") as run:
        with run.result() as output:
            (output / "adapter_model.safetensors").write_bytes(b"1")
            (output / "adapter_config.json").write_text("{}")
        run.finish(replace(REPORT, output=wanted.output), {"method": "lora"})
    assert check_output(again) == replace(REPORT, output=wanted.output)
    manifest = verify_manifest(wanted.output)
    assert manifest["method"] == "lora"
    assert set(manifest["files"]) == {"adapter_model.safetensors", "adapter_config.json"}
    assert not run.checkpoints.exists()
    with pytest.raises(UsageError):
        check_output(wanted)


@pytest.mark.parametrize("harm", ["small file changed", "large file cut", "file gone"])
def test_a_finished_run_whose_files_are_damaged_is_not_called_finished(tmp_path: Path, harm: str) -> None:
    wanted = options(tmp_path)
    with open_run_folder(wanted, "data") as run:
        with run.result() as output:
            (output / "model.safetensors").write_bytes(b"1" * (2 << 20))
            (output / "config.json").write_text("{}")
        run.finish(REPORT, {})
    again = replace(wanted, resume=True)
    assert check_output(again) is not None
    name = "config.json" if harm == "small file changed" else "model.safetensors"
    if harm == "file gone":
        (wanted.output / name).unlink()
    else:
        (wanted.output / name).write_bytes(b"[]" if name == "config.json" else b"1" * 9)
    with pytest.raises(CheckpointError) as caught:
        check_output(again)
    assert name in caught.value.what and str(wanted.output) in caught.value.where


def test_a_result_that_fails_is_taken_back_and_the_checkpoints_stay(tmp_path: Path) -> None:
    wanted = begun(tmp_path)
    before = sorted(path.name for path in wanted.output.iterdir())
    for _ in range(2):
        with (
            pytest.raises(RuntimeError),
            open_run_folder(replace(wanted, resume=True), "data") as run,
            run.result() as output,
        ):
            (output / "model.safetensors").write_bytes(b"1")
            (output / "tokenizer").mkdir()
            (output / "tokenizer" / "vocabulary").write_text("x")
            (output / "config.json").write_text("{}")
            raise RuntimeError
        assert sorted(path.name for path in wanted.output.iterdir()) == before
    assert checkpoints.newest(wanted.output / "checkpoints") is not None


def test_what_a_kill_left_of_files_half_written_never_gets_into_a_result(tmp_path: Path) -> None:
    wanted = begun(tmp_path)
    for name in (".tmpCfqY34", ".manifest.json.partial", ".run.json.partial"):
        (wanted.output / name).write_bytes(b"half")
    with open_run_folder(replace(wanted, resume=True), "data") as run:
        with run.result() as output:
            (output / "model.safetensors").write_bytes(b"1")
        run.finish(REPORT, {})
    assert set(verify_manifest(wanted.output)["files"]) == {"model.safetensors"}
    assert sorted(path.name for path in wanted.output.iterdir()) == [
        ".lock",
        "manifest.json",
        "model.safetensors",
        "run.json",
    ]


def test_a_result_that_finds_no_room_is_told_and_the_checkpoints_stay(tmp_path: Path) -> None:
    wanted = begun(tmp_path)
    with (
        pytest.raises(MedchatError) as caught,
        open_run_folder(replace(wanted, resume=True), "data") as run,
        run.result() as output,
    ):
        (output / "model.safetensors").write_bytes(b"1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output / "model.safetensors"))
    assert caught.value.exit_code == 1
    assert "--resume" in caught.value.remedy and caught.value.where.endswith("model.safetensors")
    assert not (wanted.output / "model.safetensors").exists()
    assert checkpoints.newest(wanted.output / "checkpoints") is not None


def test_an_error_that_is_none_of_the_disks_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_run_folder(options(tmp_path), "data"):
        (tmp_path / "nowhere").read_text()


def test_an_error_after_the_result_takes_nothing_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run_folder(options(tmp_path), "data") as run:
        with run.result() as output:
            (output / "model.safetensors").write_bytes(b"1")
        raise RuntimeError
    assert (tmp_path / "out" / "model.safetensors").exists()
