"""What a run leaves open is resolved before it is shown: settings and files say what it does, and hold it to that."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from cli_program import Call
from method_runs import base
from sft_arguments import data, sft

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.torch

#: What each family trains in, where nothing else is asked for.
FORMS = {
    "chatglm": "chatglm_rounds",
    "llama": "med_template",
    "bloom": "bloom_deploy",
    "huozi": "bloom_deploy",
}


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
    assert refused.code == 2 and "--option rule=med" in refused.err and "--group-by-length" in refused.err


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


def test_the_backbone_that_the_weights_told_is_said_to_be_so(tmp_path: Path, call: Call) -> None:
    told = call(*sft(tmp_path, "--dry-run", "--json")).one()["settings"]
    assert told["backbone"] == {"value": "chatglm", "origin": "由权重识别"}
    assert told["skip_bad"]["value"] is False
