"""Two real processes train as one: the same losses, the same files, and each continues where the other stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed_worker as worker
import pytest
import torch
from child_process import TORCH, child_environment, run_python, start_python
from launched import launch, launched
from locations import ROOT
from medchat_chatglm.backbone import ChatGLMBackbone
from openai_server import free_port
from safetensors.torch import load_file
from script_runs import program
from torch import Tensor

from medchat.api import SFTOptions
from medchat.demo_data import demo_examples
from medchat.errors import MedchatError, UsageError
from medchat.training.options import micro_batch_of
from medchat.training.process_group import launcher_note

pytestmark = pytest.mark.torch
METHODS = ("full", "lora")
#: Losses of two processes equal those of one by this (docs/specs/training.md, "Several processes").
TOLERANCE = 1e-6


def torchrun(*words: str | Path, processes: int = 2, home: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a script in several processes on this machine."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    environment = child_environment(MEDCHAT_HOME=str(home))
    return run_python(*launch, *map(str, words), environment=environment, imported=TORCH)


def ended_as_by_torchrun(process: subprocess.Popen[bytes], other: subprocess.Popen[bytes]) -> bytes:
    """Return what a process said; if it fails, the other is sent SIGTERM."""
    said = process.communicate(timeout=120)[1]
    if process.returncode:
        other.send_signal(signal.SIGTERM)
    return said


def in_two_processes(folder: Path, *words: str) -> list[subprocess.CompletedProcess[bytes]]:
    """Run the worker in two processes, each told by variables, as torchrun does it, which place it has."""
    port, piped = free_port(), {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first, second = (
        start_python(
            *("-m", worker.__name__, str(folder), *words),
            environment=child_environment(**launched(rank, 2, port=port), MEDCHAT_HOME=str(folder / "home")),
            imported=TORCH,
            **piped,
        )
        for rank in (0, 1)
    )
    with first, second, ThreadPoolExecutor(2) as pool:
        said = pool.map(ended_as_by_torchrun, (first, second), (second, first))
        return [
            subprocess.CompletedProcess(one.args, one.wait(), b"", errors)
            for one, errors in zip((first, second), said, strict=True)
        ]


@dataclass(frozen=True)
class Runs:
    """One process's runs of each method, and two processes' runs in the same folder."""

    folder: Path
    weights: dict[str, dict[str, Tensor]]
    told: list[dict[str, Any]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("processes")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    weights = {}
    for method in METHODS:
        model, _, _ = worker.run(folder / f"one-{method}", method)
        weights[method] = model.state_dict()
        with pytest.raises(MedchatError):
            worker.run(folder / f"one-then-two-{method}", method, worker.stop_after_three)
    ended = in_two_processes(folder)
    torch.set_num_threads(threads)
    assert [done.returncode for done in ended] == [0, 0], [done.stderr.decode()[-3000:] for done in ended]
    told = [json.loads((folder / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    return Runs(folder, weights, told)


def assert_same_rows(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted) > 6
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=0, abs=TOLERANCE), (one, other)


def assert_same_weights(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_ran(runs: Runs, method: str) -> None:
    for told in runs.told:
        assert told[method]["processes"] == 2


def test_full_fine_tuning_shards_every_parameter_and_lora_none(runs: Runs) -> None:
    for told in runs.told:
        full, lora = told["full"], told["lora"]
        assert full["sharded"] == full["parameters"] == 3 * 9 + 2  # tied: the head is the embedding
        assert 0.45 < full["held"] < 0.55
        assert lora["sharded"] == 0 and lora["held"] == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_losses_norms_and_held_out_losses_are_those_of_one_process(runs: Runs, method: str) -> None:
    assert_same_rows(
        worker.losses_of(runs.folder / f"two-{method}"), worker.losses_of(runs.folder / f"one-{method}")
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_whole_again_and_that_of_one_process(runs: Runs, method: str) -> None:
    found = torch.load(runs.folder / f"two-{method}.pt", weights_only=True)
    assert_same_weights(found, runs.weights[method])


@pytest.mark.parametrize("method", METHODS)
def test_checkpoints_have_the_layout_of_one_process(runs: Runs, method: str) -> None:
    found, wanted = (
        sorted((runs.folder / f"{count}-{method}" / "checkpoints").iterdir())[-1] for count in ("two", "one")
    )
    assert {path.name for path in found.iterdir()} == {path.name for path in wanted.iterdir()}
    for path in sorted(wanted.glob("*.safetensors")):
        ours, one = load_file(found / path.name), load_file(path)
        if path.name.startswith("state"):  # generators: each process has its own
            continue
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in one.items()}
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in ours.items()} == shapes


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_go_on_where_one_stopped(runs: Runs, method: str) -> None:
    assert all(told[method]["resumed_from"] == worker.STOPPED_AT + 1 for told in runs.told)
    assert_same_rows(
        worker.losses_of(runs.folder / f"one-then-two-{method}"),
        worker.losses_of(runs.folder / f"one-{method}"),
    )
    found = torch.load(runs.folder / f"one-then-two-{method}.pt", weights_only=True)
    assert_same_weights(found, runs.weights[method])


@pytest.mark.parametrize("method", METHODS)
def test_one_process_goes_on_where_two_stopped(runs: Runs, method: str) -> None:
    assert all(str(told[method]["stopped_at"]) in told[method]["stopped"] for told in runs.told)
    model, trained, _ = worker.run(runs.folder / f"stopped-{method}", method, resume=True)
    assert trained.resumed_from == runs.told[0][method]["stopped_at"] and trained.processes == 1
    assert_same_rows(
        worker.losses_of(runs.folder / f"stopped-{method}"), worker.losses_of(runs.folder / f"one-{method}")
    )
    assert_same_weights(model.state_dict(), runs.weights[method])


def test_only_the_main_process_is_heard(runs: Runs) -> None:
    for method in METHODS:
        assert runs.told[0][method]["events"] > 6 and runs.told[1][method]["events"] == 0


@pytest.mark.parametrize("launcher", ["", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_a_process_that_fails_ends_all_with_one_message(tmp_path: Path, launcher: str) -> None:
    if launcher:
        ended = [torchrun(worker.__file__, tmp_path, "fail", home=tmp_path / "home")]
    else:
        ended = in_two_processes(tmp_path, "fail")
    said = "".join(done.stderr.decode() for done in ended)
    assert all(done.returncode for done in ended)
    assert said.count("a record of the second process is broken") == 1
    assert "Internal error" not in said and "程序内部错误" not in said
    # The steps that were logged stay, and nothing that could be loaded.
    assert not list((tmp_path / "failed").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "expected"), [(16, 8, 1, 8), (16, 8, 2, 8), (16, 8, 4, 4), (12, 5, 2, 3)]
)
def test_micro_batches_shrink_so_that_processes_share_a_step(
    tmp_path: Path, batch: int, micro: int, processes: int, expected: int
) -> None:
    options = SFTOptions(tmp_path, tmp_path, batch_size=batch, micro_batch_size=micro)
    assert micro_batch_of(options, processes) == expected


@pytest.mark.parametrize(("batch", "processes", "advice"), [(10, 4, "8"), (3, 4, "4")])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(
    tmp_path: Path, batch: int, processes: int, advice: str
) -> None:
    options = SFTOptions(tmp_path, tmp_path, batch_size=batch, micro_batch_size=1)
    with pytest.raises(UsageError) as error:
        micro_batch_of(options, processes)
    assert error.value.remedy.endswith(f"--batch-size {advice}")


@pytest.mark.slow
def test_ctrl_c_in_two_processes_saves_once_and_one_process_ends_the_run(tmp_path: Path) -> None:
    """Through the script, as a person does it: full fine-tuning of a ChatGLM, sharded."""
    data, output = tmp_path / "train.jsonl", tmp_path / "output"
    rows = [{"instruction": pair.question, "output": pair.answer} for pair in demo_examples()[:48]]
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    text = [text for pair in demo_examples() for text in (pair.question, pair.answer)]
    ChatGLMBackbone().tiny(tmp_path / "base", corpus=text)
    folder = program(tmp_path / "bin", f'exec "{sys.executable}" -m medchat "$@"')
    launcher = folder / "torchrun"
    launcher.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n', encoding="utf-8"
    )
    launcher.chmod(0o755)
    words = ["sh", str(ROOT / "scripts" / "sft_medchat.sh"), str(tmp_path / "base"), str(data), str(output)]
    words += [
        "--num-epochs",
        "10",
        "--batch-size",
        "8",
        "--save-steps",
        "-1",
        "--samples",
        "0",
        "--device",
        "cpu",
    ]
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "said").open("w", encoding="utf-8") as said:
        two = subprocess.Popen(
            words, env=child_environment(PATH=path, NPROC="2", NNODES=""), stderr=said, start_new_session=True
        )
        log, until = output / "metrics.jsonl", time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and two.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(two.pid, signal.SIGINT)  # the terminal sends it to everybody
        assert two.wait(60) != 0
    told = (tmp_path / "said").read_text(encoding="utf-8")
    (saved,) = (output / "checkpoints").iterdir()
    assert told.count("--resume") == 1, told
    one = subprocess.run(
        [*words, "--resume", "--json"], env=child_environment(PATH=path, NPROC="1", NNODES=""),
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    report = json.loads(one.stdout)
    assert report["resumed_from"] == int(saved.name.removeprefix("step-")) < report["steps"] == 60
    assert (output / "manifest.json").is_file() and report["last_loss"] < report["first_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_accelerate_launch_starts_the_same_run(tmp_path: Path, method: str) -> None:
    """The command of docs/sft.md: two processes, one report, the result of one process."""
    data = tmp_path / "train.jsonl"
    rows = [{"instruction": pair.question, "output": pair.answer} for pair in demo_examples()[:32]]
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    text = [text for pair in demo_examples() for text in (pair.question, pair.answer)]
    ChatGLMBackbone().tiny(tmp_path / "base", corpus=text)
    words = ["medchat", "sft", "--backbone", "chatglm", "--method", method, "--model", str(tmp_path / "base")]
    words += [
        "--data",
        str(data),
        "--num-epochs",
        "1",
        "--batch-size",
        "8",
        "--lora-dropout",
        "0",
        "--device",
        "cpu",
    ]
    words += ["--learning-rate", "1e-3", "--samples", "0", "--precision", "float32", "--json", "--output"]
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "--module"]
    reports = []
    for name, first in (("one", ["-m"]), ("two", launch)):
        done = subprocess.run(
            [sys.executable, *first, *words, str(tmp_path / name)], capture_output=True, text=True, timeout=300,
            env=child_environment(MEDCHAT_HOME=str(tmp_path / "home")),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        reports.append(json.loads(done.stdout))
    one, two = reports
    assert (one["processes"], two["processes"], two["steps"]) == (1, 2, one["steps"])
    assert two["last_loss"] == pytest.approx(one["last_loss"], abs=TOLERANCE)
    assert two["best_loss"] == pytest.approx(one["best_loss"], abs=TOLERANCE)


def test_accelerates_single_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one, and says nothing of it."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "torchrun" in launcher_note()
    launch(monkeypatch, 2)
    assert launcher_note() == ""
