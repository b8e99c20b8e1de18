"""The scripts that train as the originals did: their settings, their launcher, and a run of each to the end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from child_process import TORCH, child_environment, run_python
from cli_program import Call
from locations import ROOT
from script_runs import flag, program, run, words

from medchat.demo_data import demo_examples

pytest_plugins = ("cli_program",)

#: Med-ChatGLM's and BenTsao's own settings (docs/specs/training.md, "Methods and defaults").
MED_CHATGLM = {
    "--backbone": "chatglm", "--method": "full", "--learning-rate": "5e-5", "--num-epochs": "3",
    "--batch-size": "16", "--micro-batch-size": "8", "--max-length": "256", "--scheduler": "linear",
    "--warmup-ratio": "0.1", "--adam-epsilon": "1e-3", "--seed": "2023", "--logging-steps": "10",
    "--save-steps": "0",
}  # fmt: skip
BENTSAO = {
    "--method": "lora", "--lora-r": "8", "--lora-alpha": "16", "--lora-dropout": "0.05", "--learning-rate": "3e-4",
    "--num-epochs": "10", "--batch-size": "128", "--max-length": "256", "--warmup-ratio": "0.1",
    "--eval-steps": "32", "--save-steps": "32", "--save-total": "5",
}  # fmt: skip
SCRIPTS = ("sft_medchat.sh", "finetune.sh")
ALONE = {"NPROC": "", "NNODES": "", "MASTER_ADDR": "", "MASTER_PORT": "", "NODE_RANK": ""}


def told(script: str, *more: str, folder: Path, **environment: str) -> list[str]:
    (call,) = words(folder, script, *more, **{**ALONE, **environment})
    return call


def test_each_script_has_the_settings_of_its_original(tmp_path: Path) -> None:
    call = told("sft_medchat.sh", folder=tmp_path)
    assert call[0] == "sft" and {name: flag(call, name) for name in MED_CHATGLM} == MED_CHATGLM
    call = told("finetune.sh", folder=tmp_path)
    assert call[0] == "sft" and {name: flag(call, name) for name in BENTSAO} == BENTSAO


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_tracker_is_forced_on_and_nothing_is_fetched(tmp_path: Path, script: str) -> None:
    assert "--report-to" not in told(script, folder=tmp_path)
    text = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    assert "pull" not in text and "curl" not in text and "pip" not in text


@pytest.mark.parametrize(
    ("name", "backbone", "model", "template"),
    [
        ("llama", "llama", "llama-7b", "med_template"),
        ("alpaca", "llama", "chinese-alpaca-7b", "med_template"),
        ("bloom", "bloom", "bloomz-7b1", "bloom_deploy"),
        ("huozi", "huozi", "huozi-7b-sft", "bloom_deploy"),
    ],
)
def test_finetune_knows_the_bases_of_bentsao(
    tmp_path: Path, name: str, backbone: str, model: str, template: str
) -> None:
    call = told("finetune.sh", folder=tmp_path, BACKBONE=name)
    found = [flag(call, each) for each in ("--backbone", "--model", "--template", "--output")]
    assert found == [backbone, model, template, f"output/lora-{name}-med"]


def test_finetune_names_the_bases_where_another_is_asked_for(tmp_path: Path) -> None:
    folder = program(tmp_path / "bin", ":")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    ended = run("finetune.sh", folder=tmp_path, path=path, environment={"BACKBONE": "gpt"})
    assert ended.returncode == 2 and "llama | alpaca | bloom | huozi" in ended.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_model_data_and_output_come_from_the_environment_or_the_first_words(
    tmp_path: Path, script: str
) -> None:
    names = ("--model", "--data", "--output")
    chosen = {"MODEL": "my model", "DATA": "it's.json", "OUTPUT": "o"}
    call = told(script, "--dry-run", "two words", folder=tmp_path, **chosen)
    assert [flag(call, name) for name in names] == list(chosen.values()) and call[-2:] == [
        "--dry-run",
        "two words",
    ]
    call = told(script, "m", "d", "--resume", folder=tmp_path, **chosen)
    assert [flag(call, name) for name in names] == ["m", "d", "o"] and call[-1] == "--resume"
    call = told(script, "m", "d", "p", "--seed", "1", folder=tmp_path)
    assert [flag(call, name) for name in names] == ["m", "d", "p"] and call[-2:] == ["--seed", "1"]


def launched(tmp_path: Path, **environment: str) -> tuple[list[str], str]:
    """Return the words that torchrun gets, and what the script printed."""
    folder = program(tmp_path / "bin", "exit 9")
    launcher = folder / "torchrun"
    launcher.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\037" "$word"; done\n', encoding="utf-8")
    launcher.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    ended = run(
        "sft_medchat.sh", "m", "d", "o", folder=tmp_path, path=path, environment={**ALONE, **environment}
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\x1f")[:-1], ended.stderr


def test_several_processes_are_started_by_torchrun_with_the_same_words(tmp_path: Path) -> None:
    alone = told("sft_medchat.sh", "m", "d", "o", folder=tmp_path / "alone")
    got, said = launched(tmp_path, NPROC="8")
    assert got == ["--standalone", "--nproc-per-node", "8", "--module", "medchat", *alone]
    assert said.startswith("+ torchrun --standalone --nproc-per-node 8 --module medchat sft ")


@pytest.mark.parametrize("count", ["x", "0", "2 3"])
def test_a_number_of_processes_that_is_none_is_said_before_anything_starts(
    tmp_path: Path, count: str
) -> None:
    folder = program(tmp_path / "bin", "exit 9")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    ended = run("sft_medchat.sh", folder=tmp_path, path=path, environment={**ALONE, "NPROC": count})
    assert ended.returncode == 2 and "NPROC" in ended.stderr and "Traceback" not in ended.stderr


def test_several_machines_meet_at_the_first(tmp_path: Path) -> None:
    where = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501"}
    got, _ = launched(tmp_path, NPROC="4", **where)
    assert got[:11] == [
        "--nnodes", "2", "--node-rank", "1", "--nproc-per-node", "4", "--master-addr", "10.0.0.1",
        "--master-port", "29501", "--module",
    ]  # fmt: skip


# ---------------------------------------------------------------- to the end


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data of our own, in the form of the seeds."""
    path = tmp_path_factory.mktemp("data") / "train.json"
    rows = [
        {"instruction": pair.question, "input": "", "output": pair.answer} for pair in demo_examples()[:48]
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.mark.torch
@pytest.mark.parametrize(
    ("script", "backbone", "loaded_by"),
    [
        ("sft_medchat.sh", "chatglm", "--model"),
        pytest.param("finetune.sh", "llama", "--adapter", marks=pytest.mark.slow),
    ],
)
def test_a_script_trains_a_miniature_to_the_end_and_chat_loads_the_result(
    tmp_path: Path, call: Call, data: Path, script: str, backbone: str, loaded_by: str
) -> None:
    from medchat_chatglm.backbone import ChatGLMBackbone
    from medchat_llama.backbone import LlamaBackbone

    base = tmp_path / "base"
    made = {"chatglm": ChatGLMBackbone, "llama": LlamaBackbone}[backbone]()
    made.tiny(base, corpus=[text for pair in demo_examples() for text in (pair.question, pair.answer)])
    output = tmp_path / "output"
    # The words that the script runs the program with, and the program run with them.
    chosen = told(
        script, str(base), str(data), str(output), "--num-epochs", "1", "--device", "cpu", "--learning-rate", "1e-2",
        "--batch-size", "16", "--samples", "1", "--workers", "0", folder=tmp_path,
    )  # fmt: skip
    assert flag(chosen, "--backbone") == backbone
    ended = run_python("-m", "medchat", *chosen, environment=child_environment(), imported=TORCH)
    assert ended.returncode == 0, ended.stderr.decode()
    assert (output / "manifest.json").is_file() and (output / "report.html").is_file()
    model = (
        (loaded_by, str(output)) if loaded_by == "--model" else ("--model", str(base), loaded_by, str(output))
    )
    answered = call("ask", "头痛怎么办？", "--backbone", backbone, *model, "--device", "cpu", "--greedy",
                    "--max-new-tokens", "4", "--json", "--no-save")  # fmt: skip
    assert answered.code == 0, answered.err
    assert str(output) in json.dumps(answered.one(), ensure_ascii=False)
