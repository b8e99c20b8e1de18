"""Training on a tiny LLaMA: the shared half of every recipe, without any family's own code."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sft_watcher import Watcher
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import LlamaConfig, LlamaForCausalLM

from medchat.api import SFTEvent, SFTOptions, SFTProgress
from medchat.errors import MedchatError, UsageError
from medchat.training.data_loader import Collator
from medchat.training.evaluation import label_losses
from medchat.training.features import Feature
from medchat.training.methods.full import save_weights, weights_of
from medchat.training.run_folder import open_run_folder
from medchat.training.train import fingerprint_of, train
from medchat.training.train_result import TrainResult

pytestmark = pytest.mark.torch

VOCABULARY = 64


def tiny_llama(dtype: torch.dtype = torch.float32, *, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype)


def some_features(count: int = 24, seed: int = 0) -> list[Feature]:
    random = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=random))
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=random).tolist())

    return [Feature(ids(2, 12), ids(1, 9), record) for record in range(1, count + 1)]


def collate(features: Sequence[Feature]) -> Mapping[str, Tensor]:
    """Right-padded causal batches."""
    length = max(feature.length for feature in features)
    ids = torch.zeros(len(features), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, feature in enumerate(features):
        ids[row, : feature.length] = torch.tensor([*feature.prompt_ids, *feature.answer_ids])
        mask[row, : feature.length] = 1
        labels[row, len(feature.prompt_ids) : feature.length] = torch.tensor(feature.answer_ids)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


OPTIONS = SFTOptions(
    model=Path("unused"),
    output=Path("unused"),
    learning_rate=1e-2,
    num_epochs=4,
    batch_size=8,
    micro_batch_size=4,
    logging_steps=1,
    seed=5,
    precision="float32",
)


def run(
    folder: Path,
    model: LlamaForCausalLM | None = None,
    options: SFTOptions = OPTIONS,
    features: Sequence[Feature] | None = None,
    watcher: Watcher | None = None,
    batcher: Collator = collate,
) -> tuple[TrainResult, LlamaForCausalLM, list[SFTProgress]]:
    model = model or tiny_llama()
    watcher = watcher or Watcher()
    features = some_features() if features is None else features
    options = replace(options, output=folder)
    with open_run_folder(options, fingerprint_of(features)) as opened:
        trained = train(model, features, (), batcher, options, opened, watcher)
    return trained, model, watcher.progress


def test_the_loss_falls_and_each_logged_step_is_reported_and_written(tmp_path: Path) -> None:
    trained, _, progress = run(tmp_path)
    assert trained.steps == 12
    assert [row.step for row in progress] == list(range(1, 13))
    assert trained.last_loss == progress[-1].loss < 0.85 * trained.first_loss
    assert trained.first_loss == progress[0].loss
    assert all(row.total_steps == 12 and row.tokens_per_second > 0 for row in progress)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [row.step for row in progress]
    assert [row["loss"] for row in rows] == [row.loss for row in progress]
    assert all({"step", "loss", "lr", "tokens_per_second"} <= set(row) for row in rows)


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    options = replace(OPTIONS, warmup_ratio=0.25)
    _, _, progress = run(tmp_path, options=options)
    rates = [row.learning_rate for row in progress]
    assert rates[0] < rates[1] < rates[2] <= rates[3] == pytest.approx(options.learning_rate)
    assert rates[-1] < 0.2 * options.learning_rate


def test_a_short_run_still_logs_a_tenth_of_its_steps_and_its_last(tmp_path: Path) -> None:
    options = replace(OPTIONS, logging_steps=1000, batch_size=2, micro_batch_size=2, num_epochs=3)
    _, _, progress = run(tmp_path, options=options)
    assert [row.step for row in progress] == [1, *range(3, 37, 3)]


def test_the_last_step_is_logged_even_off_the_beat(tmp_path: Path) -> None:
    options = replace(OPTIONS, batch_size=1, micro_batch_size=1, num_epochs=1)
    _, _, progress = run(tmp_path, options=replace(options, logging_steps=2), features=some_features(25))
    assert [row.step for row in progress] == [1, *range(2, 25, 2), 25]


def test_nothing_but_the_log_is_written_where_no_checkpoint_is_wanted(tmp_path: Path) -> None:
    run(tmp_path, options=replace(OPTIONS, save_steps=-1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "metrics.jsonl", "run.json"]


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    assert capfd.readouterr().out == ""


def test_one_seed_is_one_result_and_another_is_another(tmp_path: Path) -> None:
    weights = [
        weights_of(run(tmp_path / str(n), options=replace(OPTIONS, seed=seed))[1])
        for n, seed in enumerate((5, 5, 6))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_micro_batches_change_nothing_but_memory(tmp_path: Path) -> None:
    losses = []
    for micro in (8, 4, 1):
        options = replace(OPTIONS, micro_batch_size=micro)
        _, _, progress = run(tmp_path / str(micro), tiny_llama(torch.float64), options)
        losses.append([row.loss for row in progress])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_label_only_logits_give_the_loss_and_gradients_of_full_logits(tmp_path: Path) -> None:
    """A float64 model, so that only the library's float32 loss rounds: its share is below 1e-6."""
    model = tiny_llama(torch.float64)
    features = some_features(8)
    batch = collate(features)
    plain = copy.deepcopy(model)
    logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(label_losses(model, features, collate).mean()) == pytest.approx(expected.item(), rel=1e-6)

    gradients: dict[str, Tensor] = {}

    def at_update(*_: object) -> None:
        for name, parameter in model.named_parameters():
            gradients[name] = parameter.grad.clone()

    hook = register_optimizer_step_pre_hook(at_update)
    options = replace(OPTIONS, batch_size=8, micro_batch_size=8, num_epochs=1, max_grad_norm=0.0)
    trained, _, _ = run(tmp_path, model, options, features)
    hook.remove()
    assert trained.first_loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_the_head_never_sees_a_position_without_a_label(tmp_path: Path) -> None:
    model, rows = tiny_llama(), []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[:-1].numel()))
    features = some_features()
    run(tmp_path, model, replace(OPTIONS, num_epochs=1), features)
    # The first call asked what the model does with its logits.
    assert sum(rows[1:]) == sum(len(feature.answer_ids) for feature in features)


def test_batches_hold_examples_of_like_length(tmp_path: Path) -> None:
    features = [Feature((1,) * length, (2, 3), length) for length in range(1, 65)]
    sizes: list[tuple[int, int]] = []

    def watched(batch: Sequence[Feature]) -> Mapping[str, Tensor]:
        sizes.append((sum(f.length for f in batch), len(batch) * max(f.length for f in batch)))
        return collate(batch)

    options = replace(OPTIONS, num_epochs=1, batch_size=4, micro_batch_size=4)
    run(tmp_path, options=options, features=features, batcher=watched)
    real, padded = map(sum, zip(*sizes, strict=True))
    assert real / padded > 0.85


def test_a_loss_that_is_no_number_stops_at_once_and_names_the_batch(tmp_path: Path) -> None:
    features = some_features(8)
    model = tiny_llama()
    poisoned = features[5].prompt_ids[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[poisoned] = float("nan")
    guilty = {f.record for f in features if poisoned in (*f.prompt_ids, *f.answer_ids)}
    with pytest.raises(MedchatError) as caught:
        run(tmp_path, model, replace(OPTIONS, batch_size=1, micro_batch_size=1), features)
    assert int(caught.value.what.rsplit("#", 1)[1]) in guilty
    assert "nan" in caught.value.what
    assert "--learning-rate" in caught.value.remedy


def test_cancelling_stops_after_the_step_at_hand(tmp_path: Path) -> None:
    def on_event(event: SFTEvent) -> None:
        if isinstance(event, SFTProgress) and event.step == 3:
            watcher.cancel.set()

    watcher = Watcher(on_event)
    with pytest.raises(MedchatError):
        run(tmp_path, watcher=watcher)
    assert max(row.step for row in watcher.progress) <= 4


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"num_epochs": 0}, "--num-epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"batch_size": 6, "micro_batch_size": 4}, "--batch-size"),
        ({"warmup_ratio": 1.0}, "--warmup-ratio"),
        ({"scheduler": "steep"}, "--scheduler"),
        ({"max_length": 1}, "--max-length"),
    ],
)
def test_impossible_settings_are_refused_by_flag(
    tmp_path: Path, change: dict[str, object], flag: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run(tmp_path, options=replace(OPTIONS, **change))  # type: ignore[arg-type]
    assert flag in caught.value.what


# ---------------------------------------------------------------- weights on the disk


@pytest.mark.parametrize("tied", [False, True])
def test_saved_weights_are_the_trained_ones_and_tied_ones_are_stored_once(tmp_path: Path, tied: bool) -> None:
    from safetensors.torch import load_file

    model = tiny_llama(tied=tied)
    save_weights(model, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in saved) is not tied
    state = model.state_dict()
    assert all(torch.equal(saved[name], state[name]) for name in saved)
    assert set(state) - set(saved) == ({"lm_head.weight"} if tied else set())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight[3] = float("inf")
    with pytest.raises(MedchatError) as caught:
        save_weights(model, tmp_path)
    assert "model.norm.weight" in caught.value.what
    assert not list(tmp_path.iterdir())
