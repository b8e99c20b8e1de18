"""A finished run's folder: editable reports, readable weights, nothing left over."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Call
from scripted_recipe import Pupil
from sft_arguments import sft

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch


def test_card_and_report_of_a_finished_run_may_be_edited(tmp_path: Path, call: Call) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output), generation="v0")
    assert call(*words, "--num-epochs", "1", "--samples", "0").code == 0
    (output / "README.md").write_text("我的模型卡\n", encoding="utf-8")
    (output / "report.html").unlink()
    assert call(*words, "--resume").code == 0
    config = output / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert call(*words, "--resume").code == 3


def test_the_name_of_a_folder_cannot_command_the_terminal(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil = Pupil(tmp_path / "red\x1b[31m")
    monkeypatch.syspath_prepend(pupil.site)
    pupil.script(diverges_at=4)
    assert call(*pupil.flags).code == 1
    told = call("sft", "--report", "--output", str(pupil.output))
    assert told.code == 0 and "\x1b" not in told.out


def test_checkpoints_that_a_kill_left_beside_a_finished_result_are_removed(
    tmp_path: Path, call: Call
) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output))
    assert call(*words, "--num-epochs", "1", "--samples", "0").code == 0
    (output / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert call(*words, "--resume").code == 0
    assert not (output / "checkpoints").exists()


def test_a_result_is_as_readable_as_the_runs_other_files(tmp_path: Path, call: Call) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output), "--num-epochs", "1", "--samples", "0")
    assert call(*words).code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in output.iterdir()}
    assert modes["model.safetensors"] == modes["run.json"] == modes["config.json"] != 0o600
