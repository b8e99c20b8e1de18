"""Held-out loss, the best weights, and stopping early."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sft_watcher import Watcher
from short_runs import collate, logged_losses, run, some_features, tiny_llama, weights_hash

from medchat.api import SFTEvaluation, SFTNote, SFTSaved
from medchat.errors import MedchatError
from medchat.training import checkpoint as checkpoints
from medchat.training import trainer
from medchat.training.checkpoint import load_trained_weights
from medchat.training.evaluation import label_losses, mean_loss
from medchat.training.single_process import ProcessGroup

pytestmark = pytest.mark.torch

#: Learns by heart what does not carry over: the held-out loss falls at first, then rises.
OVERFITTING: dict[str, Any] = {"learning_rate": 1e-2, "num_epochs": 4, "workers": 0, "eval_steps": 2}


def evaluations_of(watcher: Watcher) -> list[SFTEvaluation]:
    return [event for event in watcher.events if isinstance(event, SFTEvaluation)]


def told_that_nothing_was_gained(watcher: Watcher) -> bool:
    return any("--learning-rate" in event.text for event in watcher.events if isinstance(event, SFTNote))


def test_the_mean_is_over_label_tokens_whatever_the_batches() -> None:
    model = tiny_llama(dtype=torch.float64)
    features = some_features(13)
    each = torch.cat([label_losses(model, [feature], collate) for feature in features])
    assert len(each) == sum(len(feature.answer_ids) for feature in features)
    for at_once in (1, 4, 13, 50):
        for head in (None, model.lm_head):
            mean = mean_loss(model, head, features, collate, at_once, ProcessGroup())
            assert mean == pytest.approx(float(each.double().mean()), rel=1e-6)


def test_an_evaluation_draws_nothing_and_leaves_the_model_training() -> None:
    model = tiny_llama(dropout=0.5).train()
    before = torch.get_rng_state()
    first, second = (
        mean_loss(model, model.lm_head, some_features(5), collate, 2, ProcessGroup()) for _ in range(2)
    )
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_the_result_is_the_best_by_held_out_loss_and_that_is_said(tmp_path: Path) -> None:
    watcher = Watcher()
    trained, digest = run("full", tmp_path / "out", watcher, save_steps=-1, save_total=1, **OVERFITTING)
    start, *evaluations = evaluations_of(watcher)
    assert (start.step, start.loss, start.best) == (0, trained.loss_before, False)
    assert [event.step for event in evaluations] == list(range(2, 25, 2))
    best = min(evaluations, key=lambda event: event.loss)
    assert (trained.best_step, trained.best_loss) == (best.step, best.loss)
    assert 2 < best.step < trained.steps == 24, "the settings must make it overfit"
    # Each event says whether none before was lower.
    lowest = math.inf
    for event in evaluations:
        assert event.best is (event.loss < lowest)
        lowest = min(lowest, event.loss)
        assert event.perplexity == pytest.approx(math.exp(event.loss))
    # No interval asked for a checkpoint: the best ones are saved all the same, and the last of them is kept.
    assert [event.step for event in watcher.events if isinstance(event, SFTSaved)] == [
        event.step for event in evaluations if event.best
    ]
    (kept,) = checkpoints.listed(tmp_path / "out" / "checkpoints")
    assert kept.step == best.step
    again = tiny_llama(dropout=0.1)
    load_trained_weights(again, kept.folder, ProcessGroup())
    assert weights_hash(again) == digest
    assert any(f" {best.step} " in event.text for event in watcher.events[-2:] if isinstance(event, SFTNote))
    rows = [(step, loss) for step, kind, loss in logged_losses(tmp_path / "out") if kind == "eval_loss"]
    assert rows == [(event.step, event.loss) for event in (start, *evaluations)]


def test_a_step_that_moved_nothing_is_never_the_best_however_good_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm-up begins at a rate of 0; all that follows here is worse than what training starts from."""
    told = iter([1.0, 1.0, 3.0, 2.0, *[2.5] * 21])
    monkeypatch.setattr(trainer, "mean_loss", lambda *_: next(told))
    watcher = Watcher()
    settings = {**OVERFITTING, "eval_steps": 1, "logging_steps": 1, "warmup_ratio": 0.1, "early_stopping": 4}
    trained, _ = run("full", tmp_path / "out", watcher, **settings)
    assert watcher.progress[0].learning_rate == 0.0
    assert [(event.step, event.best) for event in evaluations_of(watcher)][:4] == [
        (0, False), (1, False), (2, True), (3, True)
    ]  # fmt: skip
    assert (trained.best_step, trained.best_loss, trained.loss_before) == (3, 2.0, 1.0)
    assert trained.stopped_early and trained.steps == 7, "what moved nothing does not try anybody's patience"
    assert told_that_nothing_was_gained(watcher)


def test_the_loss_before_training_is_kept_over_a_break_and_taken_once(tmp_path: Path) -> None:
    def stop(event: object) -> None:
        if isinstance(event, SFTSaved):
            watcher.cancel.set()

    watcher = Watcher(stop)
    with pytest.raises(MedchatError):
        run("lora", tmp_path / "out", watcher)
    again = Watcher()
    trained, _ = run("lora", tmp_path / "out", again, resume=True)
    assert trained.loss_before == evaluations_of(watcher)[0].loss
    assert all(event.step for event in evaluations_of(again)) and not told_that_nothing_was_gained(again)


def test_a_run_of_one_step_learns_in_it(tmp_path: Path) -> None:
    watcher = Watcher()
    trained, _ = run("lora", tmp_path / "out", watcher, max_steps=1, warmup_ratio=0.1)
    assert watcher.progress[0].learning_rate > 0 and trained.best_step == 1
    assert any("1 步" in event.text for event in watcher.events if isinstance(event, SFTNote))


def test_without_a_better_evaluation_it_stops_and_knows_so_when_gone_on_with(tmp_path: Path) -> None:
    trained, digest = run("full", tmp_path / "out", early_stopping=2, **OVERFITTING)
    assert trained.stopped_early
    assert trained.steps == trained.best_step + 4
    watcher = Watcher()
    again, same = run("full", tmp_path / "out", watcher, early_stopping=2, resume=True, **OVERFITTING)
    assert watcher.progress == []
    assert (again.stopped_early, again.steps, same) == (True, trained.steps, digest)
    assert (again.best_step, again.best_loss) == (trained.best_step, trained.best_loss)


def test_a_damaged_best_checkpoint_is_said_and_the_last_weights_are_kept(tmp_path: Path) -> None:
    trained, _ = run("full", tmp_path / "out", save_total=1, **OVERFITTING)
    folder = tmp_path / "out" / "checkpoints"
    (folder / f"step-{trained.best_step:08d}" / "trained-00001.safetensors").unlink()
    watcher = Watcher()
    _, digest = run("full", tmp_path / "out", watcher, save_total=1, resume=True, **OVERFITTING)
    last = tiny_llama(dropout=0.1)
    load_trained_weights(last, folder / "step-00000024", ProcessGroup())
    assert digest == weights_hash(last)
    assert any("trained-00001" in event.text for event in watcher.events if isinstance(event, SFTNote))
