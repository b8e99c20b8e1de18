"""A run that was stopped and continued ends, to the last bit, as one that never stopped."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from method_runs import EXAMPLES, base, options, recipe
from safetensors.torch import load_file
from sft_watcher import Watcher
from short_runs import KINDS, logged_losses, run, some_features

from medchat.api import SFTData, SFTEvent, SFTNote, SFTProgress, SFTSaved
from medchat.errors import CheckpointError, MedchatError
from medchat.hashing import sha256_of
from medchat.training import checkpoint as checkpoints
from medchat.training.checkpoint import load_pytree, rng_state, save_pytree, set_rng_state

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, Path]]:
    """The hash of the weights and the folder of a run that never stopped, by kind."""
    made: dict[str, tuple[str, Path]] = {}

    def of(kind: str) -> tuple[str, Path]:
        if kind not in made:
            output = tmp_path_factory.mktemp(kind) / "out"
            made[kind] = run(kind, output)[1], output
        return made[kind]

    return of


def stopped(kind: str, output: Path, step: int, **changes: Any) -> Watcher:
    """Run until `step` is logged or saved, then stop as Ctrl-C does."""

    def on_event(event: SFTEvent) -> None:
        if isinstance(event, SFTProgress | SFTSaved) and event.step >= step:
            watcher.cancel.set()

    watcher = Watcher(on_event)
    with pytest.raises(MedchatError) as caught:
        run(kind, output, watcher, **changes)
    assert "--resume" in caught.value.remedy
    return watcher


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_stopped_again_and_again_it_ends_with_the_same_weights_and_log(
    kind: str, tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    """Within an epoch, at its end, within a logging interval, in the last epoch."""
    output = tmp_path / "out"
    stopped(kind, output, 3)
    for step in (6, 21):
        stopped(kind, output, step, resume=True)
    trained, digest = run(kind, output, resume=True)
    expected, whole = uninterrupted(kind)
    assert digest == expected
    assert logged_losses(output) == logged_losses(whole)
    assert trained.resumed_from >= 21
    assert trained.steps == 24


def test_other_weights_and_losses_come_of_another_seed(
    tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    """The comparison above can fail."""
    _, digest = run("lora", tmp_path / "out", seed=6)
    expected, whole = uninterrupted("lora")
    assert digest != expected and logged_losses(tmp_path / "out") != logged_losses(whole)


def test_each_step_is_logged_once_also_after_lines_of_a_run_that_was_killed(
    tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    output = tmp_path / "out"
    stopped("lora", output, 4)
    with (output / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6, "loss": 9.0}\n{"step": 8, "eval_loss": 9.0}\n{"step": 10, "lo')
    run("lora", output, resume=True)
    losses = logged_losses(output)
    assert losses == logged_losses(uninterrupted("lora")[1])
    assert len({(step, kind) for step, kind, _ in losses}) == len(losses)


def test_a_damaged_checkpoint_is_passed_over_with_a_note(
    tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    output = tmp_path / "out"
    stopped("lora", output, 5)
    *_, before, last = checkpoints.listed(output / "checkpoints")
    weights = next(last.folder.glob("trained-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-7])
    watcher = Watcher()
    trained, digest = run("lora", output, watcher, resume=True)
    assert trained.resumed_from == before.step
    notes = [event.text for event in watcher.events if isinstance(event, SFTNote)]
    assert any(str(weights) in text for text in notes)
    assert any(str(before.folder) in text for text in notes)
    assert digest == uninterrupted("lora")[0]


def test_with_every_checkpoint_damaged_it_starts_over_and_says_so(
    tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    output = tmp_path / "out"
    stopped("lora", output, 2)
    for checkpoint in checkpoints.listed(output / "checkpoints"):
        (checkpoint.folder / "state.json").unlink()
    watcher = Watcher()
    trained, digest = run("lora", output, watcher, resume=True)
    assert trained.resumed_from == 0 and digest == uninterrupted("lora")[0]
    assert logged_losses(output) == logged_losses(uninterrupted("lora")[1])


def test_a_run_killed_after_its_last_step_trains_no_further(
    tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    """What is left then are the complete checkpoints and no result."""
    _, whole = uninterrupted("lora")
    watcher = Watcher()
    trained, digest = run("lora", whole, watcher, resume=True)
    assert (trained.steps, trained.resumed_from) == (24, 24)
    assert watcher.progress == [] and digest == uninterrupted("lora")[0]
    assert trained.first_loss > trained.last_loss > 0 and trained.tokens > 0


def test_workers_and_one_process_make_the_same_batches(
    tmp_path: Path, uninterrupted: Callable[[str], tuple[str, Path]]
) -> None:
    _, digest = run("lora", tmp_path / "out", workers=0)
    assert digest == uninterrupted("lora")[0]


@pytest.mark.parametrize("method", ["lora", "ptuning"])
def test_what_a_method_adds_is_by_the_seed_alone(tmp_path: Path, method: str) -> None:
    """Not by what the process has drawn before: a run that starts over must start at the same place."""
    base("llama", tmp_path)
    hashes = []
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(number)
        wanted = options("llama", tmp_path, method, output=tmp_path / str(number), max_steps=2, seed=seed)
        report = recipe("llama", method).run(SFTData(EXAMPLES), wanted, Watcher())
        (weights,) = report.output.glob("*.safetensors")
        hashes.append(sha256_of(weights))
    assert hashes[0] == hashes[1] != hashes[2]


def test_no_file_of_a_run_holds_pickle(uninterrupted: Callable[[str], tuple[str, Path]]) -> None:
    for kind in KINDS:
        files = [path for path in uninterrupted(kind)[1].rglob("*") if path.is_file()]
        assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ""}
        for path in files:
            content = path.read_bytes()
            assert not content.startswith((b"\x80", b"PK")), path
            if path.suffix == ".json":
                json.loads(content)
            elif path.suffix == ".safetensors":
                load_file(path)
            else:
                content.decode("utf-8")


def test_a_checkpoint_of_an_adapter_holds_the_adapter_alone(
    uninterrupted: Callable[[str], tuple[str, Path]],
) -> None:
    (newest, *_) = reversed(checkpoints.listed(uninterrupted("lora")[1] / "checkpoints"))
    tensors = load_file(newest.folder / "trained-00001.safetensors")
    assert tensors and all("lora_" in name for name in tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adafactor"},
        {"fused_backward": True, "max_grad_norm": 0.0, "micro_batch_size": 8},
        {"precision": "bfloat16"},
        {"precision": "mixed", "gradient_checkpointing": True},
    ],
    ids=["adafactor", "fused", "bfloat16", "mixed"],
)
def test_other_optimizers_and_precisions_go_on_exactly_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {**changes, "num_epochs": 2, "workers": 0}
    _, expected = run("full", tmp_path / "whole", **changes)
    stopped("full", tmp_path / "out", 5, **changes)
    _, digest = run("full", tmp_path / "out", resume=True, **changes)
    assert digest == expected
    assert logged_losses(tmp_path / "out") == logged_losses(tmp_path / "whole")


# ---------------------------------------------------------------- the pieces


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": shared.T}, 1: {"exp_avg": shared}},
        "groups": [{"betas": (0.9, 0.999), "lr": 1e-5, "foreach": None, "fused": True, "params": [0, 1]}],
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "infinite": float("inf"),
        "__tensor__": "a key like ours",
    }
    save_pytree(tree, tmp_path, "state")
    back = load_pytree(tmp_path, "state")
    assert torch.equal(back["state"][0].pop("exp_avg"), shared.T)
    assert torch.equal(back["state"][1].pop("exp_avg"), shared)
    assert back["state"][0].pop("step") == 3.0
    assert back.pop("half").dtype is torch.bfloat16
    assert back == {
        **{key: tree[key] for key in ("groups", "infinite", "__tensor__")},
        "state": {0: {}, 1: {}},
    }


def test_an_object_has_no_place_in_a_tree(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_pytree({"callable": print}, tmp_path, "state")


def test_a_tree_that_makes_no_sense_is_an_error_of_its_own(tmp_path: Path) -> None:
    save_pytree({"a": torch.zeros(1)}, tmp_path, "state")
    (tmp_path / "state.json").write_text('{"__pairs__": [["a", {"__tensor__": "000009"}]]}')
    with pytest.raises(CheckpointError):
        load_pytree(tmp_path, "state")


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(()))

    numpy.random.standard_normal()  # half a pair: the other half is kept for the next call
    save_pytree(rng_state(), tmp_path, "random")
    expected = [draw() for _ in range(3)]
    set_rng_state(load_pytree(tmp_path, "random"))
    assert [draw() for _ in range(3)] == expected


def test_the_data_of_a_run_is_told_from_other_data() -> None:
    from medchat.training.train import fingerprint_of

    features = some_features(4)
    other = [replace(features[0], answer_ids=(1,)), *features[1:]]
    prints = {
        fingerprint_of(features),
        fingerprint_of(other),
        fingerprint_of(features[::-1]),
        fingerprint_of(features[:3], features[3:]),
        fingerprint_of(features[:2], features[2:]),
    }
    assert len(prints) == 5
    assert fingerprint_of([replace(feature, where="elsewhere") for feature in features]) in prints
