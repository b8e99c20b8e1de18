"""A run's output folder: whose it is, what may go on in it, and that nothing half-written counts."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medchat.api import SFTOptions, SFTReport, SFTSample
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.torchside.sft import checkpoints
from medchat.torchside.sft.manifest import verify_manifest, write_manifest
from medchat.torchside.sft.run_folder import RunFolder, check_output, open_run_folder
from medchat.torchside.sft.run_record import write_record

ROOT = Path(__file__).resolve().parent.parent


def options(folder: Path, **changes: Any) -> SFTOptions:
    model = folder / "base"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return replace(SFTOptions(model=model, output=folder / "out"), **changes)


def begun(folder: Path, **changes: Any) -> SFTOptions:
    """A run that stopped after one checkpoint."""
    wanted = options(folder, **changes)
    with open_run_folder(wanted, "data") as run:
        add_checkpoint(run, 4)
    return wanted


def add_checkpoint(run: RunFolder, step: int) -> Path:
    with checkpoints.new_checkpoint(run.checkpoints, step) as folder:
        (folder / "weights").write_bytes(os.urandom(100))
    return run.checkpoints / f"step-{step:08d}"


# ---------------------------------------------------------------- whose folder it is


def test_the_run_is_on_record_before_anything_is_trained(tmp_path: Path) -> None:
    wanted = options(tmp_path, output=tmp_path / "deep" / "out", learning_rate=0.25)
    with open_run_folder(wanted, "data") as run:
        assert run.path == wanted.output and not run.resumed
        recorded = json.loads((run.path / "run.json").read_text())
        assert recorded["options"]["learning_rate"] == 0.25
        assert recorded["data"] == "data"
        add_checkpoint(run, 1)


def test_an_error_before_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run_folder(options(tmp_path), "data") as run:
        run.metrics.write_text("{}")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_run_gone_on_with_that_fails_before_a_checkpoint_takes_nothing_away(tmp_path: Path) -> None:
    """Since it was killed for the first time somebody may have kept something there."""
    wanted = options(tmp_path, resume=True)
    wanted.output.mkdir()
    write_record(wanted.output, wanted, "data")
    (wanted.output / "my-notes.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(RuntimeError), open_run_folder(wanted, "data"):
            raise RuntimeError
    assert {path.name for path in wanted.output.iterdir()} == {"my-notes.txt", "run.json", ".lock"}


def test_an_error_after_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run_folder(options(tmp_path), "data") as run:
        kept = add_checkpoint(run, 3)
        raise RuntimeError
    assert verify_manifest(kept)["step"] == 3


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("1")
    (tmp_path / "file").write_text("2")
    for name in ("out", "file"):
        for resume in (False, True):
            wanted = options(tmp_path, output=tmp_path / name, resume=resume)
            with pytest.raises(UsageError) as caught, open_run_folder(wanted, "data"):
                pass
            assert name in caught.value.where and "--output" in caught.value.remedy
    assert (tmp_path / "out" / "mine").read_text() == "1"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_filled_and_kept_when_the_run_fails(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError), open_run_folder(options(tmp_path), "data"):
        raise RuntimeError
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_is_gone_on_with_only_when_asked(tmp_path: Path) -> None:
    wanted = begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        check_output(wanted)
    assert "--resume" in caught.value.remedy
    with open_run_folder(replace(wanted, resume=True), "data") as run:
        assert run.resumed and run.notes == ()


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.125},
        {"num_epochs": 9.0},
        {"extra": {"rule": "med"}},
        {"lora_targets": ("q_proj",)},
        {"seed": 1},
        {"eval_steps": 7},
    ],
)
def test_a_setting_that_changes_the_result_is_refused_by_name_with_its_old_value(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    wanted = begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        check_output(replace(wanted, resume=True, **change))
    (name,) = change
    assert "--" + name.replace("_", "-") in caught.value.what
    assert "--" + name.replace("_", "-") in caught.value.remedy


def test_every_option_is_either_compared_or_named_as_free(tmp_path: Path) -> None:
    """A new field of SFTOptions must not slip through the comparison."""
    wanted = begun(tmp_path)
    free = {"output", "resume", "device", "threads", "workers", "micro_batch_size", "gradient_checkpointing"}
    free |= {"logging_steps", "save_steps", "save_total", "report_to", "samples", "allow_truncation"}
    for name in set(SFTOptions.__dataclass_fields__) - free - {"model", "adapters"}:
        other = object.__new__(SFTOptions)
        for field in SFTOptions.__dataclass_fields__:
            object.__setattr__(other, field, getattr(wanted, field))
        object.__setattr__(other, name, "something else")
        object.__setattr__(other, "resume", True)
        with pytest.raises(UsageError):
            check_output(other)


def test_where_it_computes_may_change_and_is_told(tmp_path: Path) -> None:
    wanted = begun(tmp_path)
    changed = replace(wanted, resume=True, micro_batch_size=1, logging_steps=1)
    with open_run_folder(changed, "data") as run:
        (note,) = run.notes
        assert "--micro-batch-size" in note and "--logging-steps" not in note


def test_other_data_is_refused(tmp_path: Path) -> None:
    wanted = replace(begun(tmp_path), resume=True)
    with pytest.raises(UsageError) as caught, open_run_folder(wanted, "other"):
        pass
    assert "--data" in caught.value.remedy
    assert checkpoints.newest(wanted.output / "checkpoints") is not None


def test_another_model_is_refused_and_a_moved_one_is_not(tmp_path: Path) -> None:
    wanted = replace(begun(tmp_path), resume=True)
    wanted.model.rename(tmp_path / "moved")
    check_output(replace(wanted, model=tmp_path / "moved"))
    (tmp_path / "moved" / "config.json").write_text("[]")
    with pytest.raises(UsageError) as caught:
        check_output(replace(wanted, model=tmp_path / "moved"))
    assert "--model" in caught.value.what


def test_a_broken_record_is_told(tmp_path: Path) -> None:
    wanted = replace(begun(tmp_path), resume=True)
    (wanted.output / "run.json").write_text("{")
    with pytest.raises(UsageError) as caught:
        check_output(wanted)
    assert caught.value.where.endswith("run.json")


def test_two_runs_into_one_folder_are_one_too_many_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from medchat.api import SFTOptions
        from medchat.torchside.sft.checkpoints import new_checkpoint
        from medchat.torchside.sft.run_folder import open_run_folder
        wanted = SFTOptions(model=Path(sys.argv[1]), output=Path(sys.argv[2]))
        with open_run_folder(wanted, "data") as run, new_checkpoint(run.checkpoints, 1) as folder:
            (folder / "weights").write_bytes(b"x" * 100000)
            print("writing", flush=True)
            time.sleep(60)
        """
    )
    wanted = replace(options(tmp_path), resume=True)
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(wanted.model), str(wanted.output)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == b"writing\n"
        with pytest.raises(UsageError) as caught, open_run_folder(wanted, "data"):
            pass
        assert str(wanted.output) in caught.value.where
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert list(wanted.output.rglob("weights"))
    with open_run_folder(wanted, "data") as run:
        assert run.resumed
        assert not list(wanted.output.rglob("weights"))
        assert checkpoints.newest(run.checkpoints) is None


# ---------------------------------------------------------------- the result


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


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    with checkpoints.new_checkpoint(tmp_path, 7) as folder:
        (folder / "weights").write_bytes(b"1")
        assert checkpoints.listed(tmp_path) == []
    (one,) = checkpoints.listed(tmp_path)
    assert one == checkpoints.Checkpoint(7, tmp_path / "step-00000007") == checkpoints.newest(tmp_path)
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
    """A run that passed it over goes on from an earlier step and saves before it gets there again."""
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
