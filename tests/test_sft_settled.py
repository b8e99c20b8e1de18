"""What a run leaves open is settled before it is shown: settings and files say what it does, and hold it to that."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import Call
from method_runs import EXAMPLES, base
from sft_pupil import Pupil

from medchat.torchside.sft import training_arguments

pytest_plugins = ("cli_fixtures",)
pytestmark = pytest.mark.torch

#: What each family trains in, where nothing else is asked for.
FORMS = {
    "chatglm": "chatglm_rounds",
    "llama": "med_template",
    "bloom": "bloom_deploy",
    "huozi": "bloom_deploy",
}


def data(folder: Path, pairs: Sequence[tuple[str, str]] = ()) -> str:
    path = folder / "data.json"
    given = pairs or [(one.question, one.answer) for one in EXAMPLES]
    rows = [{"instruction": question, "output": answer} for question, answer in given]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def sft(
    folder: Path, *more: str, family: str = "chatglm", pairs: Sequence[tuple[str, str]] = (), **shape: Any
) -> tuple[str, ...]:
    """Return the words that fine-tune a family's miniature on a few records."""
    model = str(base(family, folder, **shape))
    return ("sft", "--model", model, "--data", data(folder, pairs), "--device", "cpu", *more)


@pytest.mark.parametrize("family", FORMS)
def test_a_dry_run_names_precision_and_template(tmp_path: Path, call: Call, family: str) -> None:
    words = sft(tmp_path, "--method", "lora", "--dry-run", "--json", family=family)
    settings = call(*words).one()["settings"]
    assert settings["precision"]["value"] in ("float32", "mixed")
    assert settings["template"] == {"value": FORMS[family], "origin": "由权重、方法和设备决定"}
    assert ("extra.rule" in settings) is (family == "chatglm")


@pytest.mark.parametrize(
    ("flags", "rule"),
    [((), "med"), (("--rule", "v11"), "v11"), (("--collator", "med"), "med")],
)
def test_chatglms_rule_is_the_collators_the_one_asked_for_or_the_weights(
    tmp_path: Path, call: Call, flags: tuple[str, ...], rule: str
) -> None:
    words = sft(tmp_path, "--dry-run", "--json", generation="v0")
    assert call(*words, *flags).one()["settings"]["extra.rule"]["value"] == rule
    refused = call(*words, "--collator", "med", "--rule", "v11")
    assert refused.code == 2 and "--rule v11" in refused.failure()[0]


def test_the_saved_file_states_it_and_going_on_by_it_is_the_same_run(tmp_path: Path, call: Call) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output), generation="v0")
    words += ("--num-epochs", "1", "--precision", "float32", "--samples", "0")
    assert call(*words).code == 0
    kept = tomllib.loads((output / "sft.toml").read_text(encoding="utf-8"))
    assert (kept["template"], kept["precision"], kept["extra"]) == ("med_chatglm", "float32", {"rule": "med"})
    again = call("sft", "--output", str(output), "--resume")
    assert again.code == 0 and "已经完成" in again.err
    refused = call(*words, "--resume", "--rule", "v11", "--no-group-by-length")
    assert refused.code == 2 and "--extra rule=med" in refused.err and "--group-by-length" in refused.err


def test_a_form_of_ones_own_is_not_taken_for_the_shipped_one_of_its_name(tmp_path: Path, call: Call) -> None:
    form = tmp_path / "med_template.json"
    form.write_text(
        json.dumps({"description": "mine", "prompt_input": "", "prompt_no_input": "我问：{instruction}\n你答：",
                    "response_split": "你答："}),
        encoding="utf-8",
    )  # fmt: skip
    words = ("sft", "--data", data(tmp_path), "--device", "cpu", "--num-epochs", "1", "--method", "full")
    words += ("--samples", "0", "--precision", "float32")
    first = call(*words, "--model", str(base("llama", tmp_path)), "--output", str(tmp_path / "one"),
                 "--template", str(form))  # fmt: skip
    assert first.code == 0, first.err
    second = call(*words, "--model", str(tmp_path / "one"), "--output", str(tmp_path / "two"))
    assert second.code == 0, second.err
    assert "我问：" in second.err
    assert "template" not in tomllib.loads((tmp_path / "two" / "sft.toml").read_text(encoding="utf-8"))
    assert call("sft", "--output", str(tmp_path / "two"), "--resume").code == 0


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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--fused-backward",), "--fused-backward"),
        (("--report-to", "wandb"), "medchat[wandb]"),
        (("--optimizer", "adafactor"), "--optimizer adamw"),
    ],
)
def test_what_cannot_run_here_is_refused_before_anything_is_loaded_and_by_a_dry_run(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(training_arguments, "find_spec", lambda name: None)
    if "adafactor" in flags:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "0")
    words = sft(tmp_path, "--batch-size", "4", "--micro-batch-size", "2", *flags)
    told = call(*words, "--dry-run")
    assert told.code == 2 and said in told.failure()[1], told.err


def test_checkpoints_that_a_kill_left_beside_a_finished_result_are_removed(
    tmp_path: Path, call: Call
) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output))
    assert call(*words, "--num-epochs", "1", "--samples", "0").code == 0
    (output / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert call(*words, "--resume").code == 0
    assert not (output / "checkpoints").exists()


def test_the_length_advised_is_for_all_records_and_does(tmp_path: Path, call: Call) -> None:
    pairs = [(f"{number}：" + "头痛怎么办？" * (number + 1), "多休息。" * 3) for number in range(40)]
    words = sft(tmp_path, "--dry-run", pairs=pairs)
    refused = call(*words, "--max-length", "24")
    what, remedy = refused.failure()
    assert refused.code == 6 and what.startswith("错误：40 条")
    enough, whole = re.search(r"--max-length (\d+)（(\d+) ", remedy).groups()  # type: ignore[union-attr]
    assert call(*words, "--max-length", enough).code == 0
    told = call(*words, "--max-length", whole, "--json").one()["survey"]
    assert told["over"] == told["cut_answers"] == told["cut_questions"] == 0


def test_early_stopping_without_an_evaluation_is_refused(tmp_path: Path, call: Call) -> None:
    words = sft(tmp_path, "--early-stopping", "2", "--dry-run")
    refused = call(*words)  # too few records to hold any out
    assert refused.code == 2 and "--val-size" in refused.failure()[1]
    assert call(*words, "--val-size", "2").code == 0
    assert call(*words, "--val-size", "2", "--eval-steps", "-1").code == 2


def test_a_result_is_as_readable_as_the_runs_other_files(tmp_path: Path, call: Call) -> None:
    output = tmp_path / "out"
    words = sft(tmp_path, "--output", str(output), "--num-epochs", "1", "--samples", "0")
    assert call(*words).code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in output.iterdir()}
    assert modes["model.safetensors"] == modes["run.json"] == modes["config.json"] != 0o600


def test_going_on_where_there_is_nothing_asks_for_the_output(tmp_path: Path, call: Call) -> None:
    nowhere = call("sft", "--resume", "--output", str(tmp_path / "nope"))
    assert nowhere.code == 2 and str(tmp_path / "nope") in nowhere.failure()[0]
    alone = call("sft", "--resume")
    assert alone.code == 2 and "--output" in alone.failure()[1] and "--data" not in alone.failure()[1]


def test_answers_without_their_ends_are_pointed_out(tmp_path: Path, call: Call) -> None:
    words = sft(tmp_path, "--dry-run", pairs=[("头痛？", "多休息，多喝水，晚上早点睡。" * 9)] * 9)
    assert "学不到结尾" in call(*words, "--max-length", "40").out
    assert "学不到结尾" not in call(*words, "--max-length", "2000").out


def test_the_backbone_that_the_weights_told_is_said_to_be_so(tmp_path: Path, call: Call) -> None:
    told = call(*sft(tmp_path, "--dry-run", "--json")).one()["settings"]
    assert told["backbone"] == {"value": "chatglm", "origin": "由权重识别"}
    assert told["skip_bad"]["value"] is False
