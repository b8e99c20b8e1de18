"""The shell scripts that stand for the original projects': what they run, and that a plain POSIX shell runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batch_program import Parrot, rows, write_questions
from locations import ROOT
from script_runs import flag, program, run, words

from medchat.registry import Registry
from medchat.weights.catalogue import Catalogue

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
INFERRING = ("infer.sh", "infer-literature-single.sh", "infer-literature-multi.sh", "compare.sh")
#: Those that others source.
PARTS = ("environment.sh", "program.sh", "training.sh")
SHELLS = [shell for shell in ("dash", "sh", "bash", "busybox") if shutil.which(shell)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_shell_here_reads_the_script(script: Path) -> None:
    for shell in SHELLS:
        words = ["busybox", "sh"] if shell == "busybox" else [shell]
        read = subprocess.run([*words, "-n", str(script)], capture_output=True, text=True)
        assert (read.returncode, read.stderr) == (0, "")
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("name", [script.name for script in SCRIPTS if script.name not in PARTS])
def test_scripts_stop_at_the_first_failure_and_at_unset_names(name: str) -> None:
    lines = (ROOT / "scripts" / name).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert next(line for line in lines if not line.startswith("#")) == "set -eu"


def test_infer_asks_as_the_original_did(tmp_path: Path) -> None:
    (call,) = words(tmp_path, "infer.sh")
    assert call[0] == "infer"
    for name, value in {
        "--backbone": "llama",
        "--model": "llama-7b",
        "--adapter": "lora-llama-med",
        "--template": "med_template",
        "--data": "data/infer.json",
        "--num-beams": "4",
        "--max-new-tokens": "256",
    }.items():
        assert flag(call, name) == value


def test_the_environment_and_the_arguments_go_over_the_defaults(tmp_path: Path) -> None:
    chosen = {"MODEL": "my models/a", "DATA": "d.json", "OUTPUT": "o.jsonl", "ADAPTER": "it's here"}
    (call,) = words(tmp_path, "infer.sh", "--num-beams", "1", "two words", "", "$(x)", **chosen)
    given = [flag(call, name) for name in ("--model", "--data", "--output", "--adapter")]
    assert given == list(chosen.values())
    assert call[-5:] == ["--num-beams", "1", "two words", "", "$(x)"]
    (alone,) = words(tmp_path, "infer.sh", ADAPTER="")
    assert "--adapter" not in alone and "--template" not in alone
    (other,) = words(tmp_path, "infer.sh", BACKBONE="bloom", MODEL="m")
    assert (flag(other, "--backbone"), flag(other, "--adapter"), flag(other, "--template")) == (
        "bloom",
        None,
        None,
    )


@pytest.mark.parametrize(("kind", "history"), [("single", "none"), ("multi", "all")])
def test_the_literature_scripts_differ_in_the_history_they_send(
    tmp_path: Path, kind: str, history: str
) -> None:
    (call,) = words(tmp_path, f"infer-literature-{kind}.sh", "--resume")
    assert (flag(call, "--history"), flag(call, "--template")) == (history, "literature_template")
    assert (flag(call, "--adapter"), call[-1]) == ("lora-llama-literature", "--resume")
    assert flag(call, "--output") == f"results/literature-{kind}.jsonl"
    (other,) = words(tmp_path, f"infer-literature-{kind}.sh", BACKBONE="chatglm", MODEL="m")
    assert flag(other, "--adapter") is None


def checked_first(calls: list[list[str]]) -> list[list[str]]:
    """Return the runs, after seeing that each was checked before the first of them began."""
    half = len(calls) // 2
    assert [[word for word in call if word != "--check"] for call in calls[:half]] == calls[half:]
    assert all("--check" in call for call in calls[:half])
    return calls[half:]


def test_compare_asks_three_times_and_then_joins(tmp_path: Path) -> None:
    *calls, joined = words(tmp_path, "compare.sh", "--dtype", "float32")
    calls = checked_first(calls)
    assert [flag(call, "--template") for call in calls] == ["ori_template", "alpaca", "med_template"]
    assert [flag(call, "--adapter") for call in calls] == [None, "alpaca-lora-7b", "lora-llama-med"]
    assert all(call[-2:] == ["--dtype", "float32"] and "--resume" in call for call in calls)
    assert len({flag(call, "--output") for call in calls}) == 3
    assert joined[0] == "compare" and len(joined) == 6
    *calls, joined = words(tmp_path, "compare.sh", ALPACA="")
    calls = checked_first(calls)
    assert [flag(call, "--adapter") for call in calls] == [None, "lora-llama-med"]
    assert len(joined) == 5
    assert words(tmp_path, "compare.sh", ALPACA="", ADAPTER="")[-1][0] == "compare"


@pytest.mark.parametrize("name", INFERRING)
def test_what_a_script_names_by_default_can_be_pulled(tmp_path: Path, name: str) -> None:
    catalogue = Catalogue(Registry().backbones())
    for call in words(tmp_path, name):
        model, adapter = flag(call, "--model"), flag(call, "--adapter")
        if model:
            assert catalogue.find(model), model
        if adapter:
            found = catalogue.find(adapter)
            assert found and found.known.kind == "adapter" and model in found.known.fits, adapter


def test_the_command_is_printed_so_that_it_can_be_run_again(tmp_path: Path) -> None:
    told = program(tmp_path / "bin", ":")
    path = f"{told}{os.pathsep}{os.environ['PATH']}"
    ended = run("infer.sh", "it's", "", folder=tmp_path, path=path)
    assert ended.stdout == ""
    assert ended.stderr.startswith("+ medchat infer --backbone llama ")
    again = subprocess.run(
        ["sh", "-c", 'medchat() { printf "%s|" "$@"; }; ' + ended.stderr[2:]], capture_output=True, text=True
    )
    assert again.stdout.startswith("infer|--backbone|llama|") and again.stdout.endswith("|it's||")


def test_the_program_comes_from_path_or_else_from_the_environment_beside(tmp_path: Path) -> None:
    bare = os.pathsep.join(["/usr/bin", "/bin"])
    if shutil.which("medchat", path=bare):
        pytest.skip("medchat is installed for the whole system")
    missing = run(
        "infer.sh", folder=tmp_path, path=bare, environment={"MEDCHAT_VENV": str(tmp_path / "none")}
    )
    assert missing.returncode == 3 and "quickstart.sh" in missing.stderr
    program(tmp_path / "venv" / "bin", "echo beside; exit 6")
    beside = run("infer.sh", folder=tmp_path, path=bare, environment={"MEDCHAT_VENV": str(tmp_path / "venv")})
    assert (beside.returncode, beside.stdout) == (6, "beside\n")


def parrots(tmp_path: Path, **chosen: str) -> tuple[Parrot, dict[str, str]]:
    """Return a model for compare.sh with two adapters, and the environment that names all three."""
    parrot = Parrot(tmp_path / "parrot")
    data = write_questions(tmp_path / "questions.jsonl", 3)
    for name in ("alpaca", "med"):
        (tmp_path / name).mkdir()
    told = program(tmp_path / "bin", f'exec "{sys.executable}" -m medchat "$@"')
    path = f"{told}{os.pathsep}{os.environ['PATH']}"
    return parrot, {
        **parrot.environment,
        "PATH": path,
        "BACKBONE": "parrot",
        "MODEL": str(parrot.model),
        "ALPACA": str(tmp_path / "alpaca"),
        "ADAPTER": str(tmp_path / "med"),
        "DATA": str(data),
        "OUTPUT": str(tmp_path / "out"),
        **chosen,
    }


@pytest.mark.parametrize("wrong", ["MODEL", "ALPACA", "ADAPTER", "DATA", "unfit"])
def test_compare_finds_a_wrong_input_before_the_first_answer(tmp_path: Path, wrong: str) -> None:
    parrot, chosen = parrots(tmp_path)
    if wrong == "unfit":
        (tmp_path / "med" / "of-another-base").touch()
    else:
        chosen[wrong] = str(tmp_path / "missing")
    ended = run("compare.sh", folder=tmp_path, path=chosen["PATH"], environment=chosen)
    assert (
        ended.returncode == 3 and str(tmp_path / ("med" if wrong == "unfit" else "missing")) in ended.stderr
    )
    assert not parrot.calls() and not (tmp_path / "out").exists()


def test_compare_makes_the_table_and_goes_on_where_it_was(tmp_path: Path) -> None:
    parrot, chosen = parrots(tmp_path)
    for _ in range(2):
        ended = run(
            "compare.sh", "--batch-size", "2", folder=tmp_path, path=chosen["PATH"], environment=chosen
        )
        assert ended.returncode == 0, ended.stderr
        page = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
        assert "| 问题 | Plain | Alpaca | Med |" in page and "人工智能生成" in page
        assert sum(line.startswith("| 第") for line in page.splitlines()) == 3
    assert [line["adapter"] for line in rows(tmp_path / "out" / "med.jsonl")] == [[str(tmp_path / "med")]] * 3
    assert sum(len(call["texts"]) for call in parrot.calls()) == 9
