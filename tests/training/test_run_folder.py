"""A run's output folder: whose it is, and what may continue in it."""

from __future__ import annotations

import json
import signal
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_process import TORCH, child_environment, start_python
from run_folders import add_checkpoint, begun, options

from medchat.api import SFTOptions
from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import UsageError
from medchat.training import checkpoint as checkpoints
from medchat.training.previous_run import check_output
from medchat.training.run_folder import open_run_folder
from medchat.training.run_record import write_run_record


def test_the_run_is_on_record_before_anything_is_trained(tmp_path: Path) -> None:
    wanted = options(tmp_path, output=tmp_path / "deep" / "out", learning_rate=0.25)
    with open_run_folder(wanted, "data") as run:
        assert run.path == wanted.output and not run.resumed
        recorded = json.loads((run.path / "run.json").read_text())
        assert recorded["options"]["learning_rate"] == 0.25
        assert recorded["data"] == "data"
        add_checkpoint(run, 1)


def test_an_error_before_the_first_logged_step_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run_folder(options(tmp_path), "data"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_error_before_a_checkpoint_keeps_the_steps_that_were_logged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_run_folder(options(tmp_path), "data") as run:
        run.metrics.write_text("{}")
        raise RuntimeError
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == "{}"


def test_a_run_gone_on_with_that_fails_before_a_checkpoint_takes_nothing_away(tmp_path: Path) -> None:
    """Since it was killed for the first time somebody may have kept something there."""
    wanted = options(tmp_path, resume=True)
    wanted.output.mkdir()
    write_run_record(wanted.output, wanted, "data")
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
    ("change", "flag"),
    [
        ({"learning_rate": 0.125}, "--learning-rate"),
        ({"num_epochs": 9.0}, "--num-epochs"),
        ({"extra": {"rule": "med"}}, "--option"),
        ({"lora_targets": ("q_proj",)}, "--lora-targets"),
        ({"seed": 1}, "--seed"),
        ({"eval_steps": 7}, "--eval-steps"),
    ],
)
def test_a_setting_that_changes_the_result_is_refused_by_name_with_its_old_value(
    tmp_path: Path, change: dict[str, Any], flag: str
) -> None:
    wanted = begun(tmp_path)
    with pytest.raises(UsageError) as caught:
        check_output(replace(wanted, resume=True, **change))
    assert flag in caught.value.what
    assert flag in caught.value.remedy


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
        from medchat.training.checkpoint import new_checkpoint
        from medchat.training.run_folder import open_run_folder
        wanted = SFTOptions(model=Path(sys.argv[1]), output=Path(sys.argv[2]))
        with open_run_folder(wanted, "data") as run, new_checkpoint(run.checkpoints, 1) as folder:
            (folder / "weights").write_bytes(b"x" * 100000)
            print("writing", flush=True)
            time.sleep(60)
        """
    )
    wanted = replace(options(tmp_path), resume=True)
    words = ("-c", program, str(wanted.model), str(wanted.output))
    child = start_python(*words, environment=child_environment(), imported=TORCH, stdout=subprocess.PIPE)
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
