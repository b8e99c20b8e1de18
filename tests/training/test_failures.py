"""What goes wrong in a run is said with its place, and what was good before is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import short_runs
import torch
from limited_files import files_no_larger_than
from safetensors import SafetensorError
from sft_watcher import Watcher
from short_runs import run, tiny_llama
from torch import Tensor

from medchat.api import SFTEvent, SFTProgress, SFTSaved
from medchat.checkpoints import manifest
from medchat.errors import MedchatError, UsageError
from medchat.training import checkpoint as checkpoints
from medchat.training import trainer, training_arguments
from medchat.training.checkpoint import load_trained_weights
from medchat.training.single_process import ProcessGroup

pytestmark = pytest.mark.torch

SHORT: dict[str, Any] = {"num_epochs": 2, "workers": 0, "eval_steps": -1}


def harmed(monkeypatch: pytest.MonkeyPatch, harm: Callable[[Any], None]) -> list[Any]:
    """Models of the runs to come, each with something wrong."""
    made: list[Any] = []
    whole = short_runs.trainable

    def trainable(kind: str, options: Any) -> Any:
        made.append(whole(kind, options))
        harm(made[-1])
        return made[-1]

    monkeypatch.setattr(short_runs, "trainable", trainable)
    return made


# ---------------------------------------------------------------- no number


def test_a_loss_that_is_no_number_names_its_records_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = short_runs.some_features()
    guilty = features[17]
    collate = short_runs.collate

    def poisoned(batch: Any) -> Mapping[str, Tensor]:
        made = dict(collate(batch))
        if guilty in batch:
            made["position_ids"] = torch.full(made["input_ids"].shape, float("nan"))
        return made

    monkeypatch.setattr(short_runs, "collate", poisoned)
    watcher = Watcher()
    with pytest.raises(MedchatError) as caught:
        run("full", tmp_path / "out", watcher, batch_size=4, micro_batch_size=2, **SHORT)
    what, remedy = caught.value.what, caught.value.remedy
    assert guilty.where in what and "nan" in what
    assert what.count("data.json:") == 2, "the micro-batch alone is named"
    last = watcher.progress[-1].step
    kept = checkpoints.newest(tmp_path / "out" / "checkpoints")
    assert last > 1 and kept is not None and kept.step >= last
    assert str(kept.step) in remedy and "--learning-rate" in remedy


def test_an_infinite_gradient_stops_before_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher()

    def harm(model: Any) -> None:
        def hook(gradient: Tensor) -> Tensor:
            return gradient * float("inf") if len(watcher.progress) >= 3 else gradient

        model.model.norm.weight.register_hook(hook)

    models = harmed(monkeypatch, harm)
    with pytest.raises(MedchatError) as caught:
        run("full", tmp_path / "out", watcher, logging_steps=1, **SHORT)
    assert "nan" in caught.value.what, "infinities of both signs add up to that"
    assert caught.value.what.count("data.json:") == 8, "the gradient is of the whole step"
    assert all(bool(torch.isfinite(parameter).all()) for parameter in models[0].parameters())
    kept = checkpoints.newest(tmp_path / "out" / "checkpoints")
    assert kept is not None and kept.step == watcher.progress[-1].step


def test_weights_that_are_no_numbers_never_push_out_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step inside the backward pass clips and checks no gradient."""
    watcher = Watcher()

    def harm(model: Any) -> None:
        def hook(gradient: Tensor) -> Tensor:
            return gradient * float("inf") if len(watcher.progress) >= 3 else gradient

        model.model.norm.weight.register_hook(hook)

    harmed(monkeypatch, harm)
    fused = {"fused_backward": True, "max_grad_norm": 0.0, "micro_batch_size": 8}
    with pytest.raises(MedchatError):
        run("full", tmp_path / "out", watcher, logging_steps=1, **fused, **SHORT)
    kept = checkpoints.newest(tmp_path / "out" / "checkpoints")
    assert kept is not None and kept.step == 3
    model = tiny_llama()
    load_trained_weights(model, kept.folder, ProcessGroup())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


@pytest.mark.parametrize("save_steps", [1, -1], ids=["at-the-checkpoint", "at-the-next-loss"])
def test_an_update_inside_the_backward_pass_that_breaks_the_weights_names_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_steps: int
) -> None:
    """No gradient is looked at there: what went wrong shows a moment later, in the weights or the next loss."""
    guilty, seen = short_runs.some_features()[17], []
    collate = short_runs.collate
    monkeypatch.setattr(short_runs, "collate", lambda batch: seen.append(list(batch)) or collate(batch))

    def harm(model: Any) -> None:
        def hook(gradient: Tensor) -> Tensor:
            return gradient * float("inf") if guilty in seen[-1] else gradient

        model.model.norm.weight.register_hook(hook)

    harmed(monkeypatch, harm)
    fused = {"fused_backward": True, "max_grad_norm": 0.0, "micro_batch_size": 8, "workers": 0}
    with pytest.raises(MedchatError) as caught:
        run("full", tmp_path / "out", **{**SHORT, **fused, "save_steps": save_steps, "eval_steps": -1})
    assert guilty.where in caught.value.what
    assert caught.value.what.count("data.json:") <= 16


def test_divergence_before_any_checkpoint_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harm(model: Any) -> None:
        with torch.no_grad():
            model.lm_head.weight.fill_(float("nan"))

    harmed(monkeypatch, harm)
    with pytest.raises(MedchatError):
        run("full", tmp_path / "out", **SHORT)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- no room


def full_disk(monkeypatch: pytest.MonkeyPatch, watcher: Watcher, where: str) -> None:
    """After the third step the disk is full: for safetensors, for Python's own writes, or at the sync."""

    def is_full() -> bool:
        return len(watcher.progress) >= 3

    if where == "safetensors":

        def no_room(tensors: Any, folder: Path, name: str) -> None:
            save_tensors(tensors, folder, name)
            if is_full():
                reason = f"{os.strerror(errno.ENOSPC)} (os error {errno.ENOSPC})"
                raise SafetensorError(f"Error while serializing: I/O error: {reason}")

        save_tensors = trainer.save_tensors
        monkeypatch.setattr(trainer, "save_tensors", no_room)
    elif where == "sync":

        def sync(path: Path) -> None:
            if is_full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        monkeypatch.setattr(manifest, "sync", sync)
    else:

        def on_event(event: SFTEvent) -> None:
            if is_full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        watcher.react = on_event


@pytest.mark.parametrize("where", ["safetensors", "sync", "log"])
def test_a_full_disk_is_told_and_the_run_goes_on_exactly_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    _, expected = run("full", tmp_path / "whole", logging_steps=1, **SHORT)
    watcher = Watcher()
    with monkeypatch.context() as patched:
        full_disk(patched, watcher, where)
        with pytest.raises(MedchatError) as caught:
            run("full", tmp_path / "out", watcher, logging_steps=1, **SHORT)
    error = caught.value
    assert error.exit_code == 1
    assert os.strerror(errno.ENOSPC) in error.what
    assert "--resume" in error.remedy and " 2 " in error.remedy
    folder = tmp_path / "out" / "checkpoints"
    assert [checkpoint.step for checkpoint in checkpoints.listed(folder)] == [1, 2]
    assert len(list(folder.iterdir())) == 2, "half a checkpoint would take room that is missing"
    _, digest = run("full", tmp_path / "out", logging_steps=1, resume=True, **SHORT)
    assert digest == expected


def test_a_real_limit_of_the_kernel_is_told_like_a_full_disk(tmp_path: Path) -> None:
    """No checkpoint fits: what was logged stays all the same, and the run can continue from its beginning."""
    _, expected = run("full", tmp_path / "whole", **SHORT)
    with files_no_larger_than(30_000), pytest.raises(MedchatError) as caught:
        run("full", tmp_path / "out", **SHORT)
    assert os.strerror(errno.EFBIG) in caught.value.what and "--resume" in caught.value.remedy
    logged = (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"step": 1' in logged
    with files_no_larger_than(30_000), pytest.raises(MedchatError) as caught:
        run("full", tmp_path / "out", resume=True, **SHORT)
    assert "--resume" in caught.value.remedy and (tmp_path / "out" / "metrics.jsonl").stat().st_size
    _, digest = run("full", tmp_path / "out", resume=True, **SHORT)
    assert digest == expected


def test_a_disk_that_was_full_from_the_start_leaves_nothing(tmp_path: Path) -> None:
    with files_no_larger_than(100), pytest.raises(MedchatError):
        run("full", tmp_path / "out", **SHORT)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- asked to stop


def test_asked_to_stop_it_finishes_the_step_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    def on_event(event: SFTEvent) -> None:
        if isinstance(event, SFTProgress) and event.step == 3:
            watcher.cancel.set()

    watcher = Watcher(on_event)
    with pytest.raises(MedchatError) as caught:
        run("lora", tmp_path / "out", watcher, logging_steps=1, save_steps=-1, **SHORT)
    assert max(row.step for row in watcher.progress) <= 4
    saved = [event for event in watcher.events if isinstance(event, SFTSaved)]
    assert [event.step for event in saved] == [max(row.step for row in watcher.progress)]
    assert saved[0].folder.is_dir()
    assert str(saved[0].step) in caught.value.what
    assert "--resume" in caught.value.remedy


# ---------------------------------------------------------------- settings


def test_tensorboard_gets_every_loss_beside_the_result(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("lora", tmp_path / "out", report_to=("tensorboard",), **{**SHORT, "eval_steps": 4})
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    for tag, kind in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        seen = [(event.step, event.value) for event in events.Scalars(tag)]
        logged = [
            (step, loss) for step, what, loss in short_runs.logged_losses(tmp_path / "out") if what == kind
        ]
        assert logged and seen == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in logged]


def test_a_tracker_that_is_not_installed_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_arguments, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        run("lora", tmp_path / "out", report_to=("swanlab",), **SHORT)
    assert "swanlab" in caught.value.what and "medchat[swanlab]" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_gradient_checkpointing_changes_no_loss_and_is_off_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = harmed(monkeypatch, lambda model: None)
    results = [run("full", tmp_path / str(on), gradient_checkpointing=on, **SHORT) for on in (False, True)]
    assert results[0][1] == results[1][1]
    assert not models[1].is_activation_checkpointing


def test_a_model_without_gradient_checkpointing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmed(monkeypatch, lambda model: setattr(type(model), "supports_gradient_checkpointing", False))
    monkeypatch.setattr(type(tiny_llama()), "supports_gradient_checkpointing", True)
    with pytest.raises(UsageError) as caught:
        run("full", tmp_path / "out", gradient_checkpointing=True, **SHORT)
    assert "--gradient-checkpointing" in caught.value.what


def test_mixed_precision_leaves_the_models_own_forward_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = harmed(monkeypatch, lambda model: None)
    run("full", tmp_path / "mixed", precision="mixed", **SHORT)
    run("full", tmp_path / "plain", precision="float32", **SHORT)
    assert short_runs.weights_hash(models[0]) != short_runs.weights_hash(models[1]), "it was not mixed"
    ids = torch.arange(1, 9).unsqueeze(0)
    plain = tiny_llama()
    plain.load_state_dict(models[0].state_dict())
    assert torch.equal(models[0](input_ids=ids).logits, plain.eval()(input_ids=ids).logits)
    assert models[0].config.use_cache == plain.config.use_cache
