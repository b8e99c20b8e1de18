"""Adapters that do not fit, change nothing or are no plain LoRA are refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from adapter_miniatures import CPU, FLOAT, LAYERS, WIDTH, changed, logits, matrices, write
from checkpoint_files import RunsCommand, poison
from refusals import refused
from torch import Tensor
from transformers import LlamaForCausalLM

from medchat.checkpoints.lora_folder import open_lora
from medchat.inference.adapters.lora import attach_loras, check_lora_fit

pytest_plugins = ("adapter_miniatures",)
pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", "missing model.layers.0"),
        ("unexpected", "unexpected"),
        ("idle", "changes no logit"),
        ("nan", "NaN"),
        ("integers", "int64"),
        ("whole tensor", "unexpected base_model.model.lm_head.weight"),
    ],
)
@pytest.mark.parametrize("layout", ["bin", "safetensors"])
def test_weights_that_do_not_fit_are_refused(
    model: LlamaForCausalLM, tmp_path: Path, layout: str, case: str, words: str
) -> None:
    folder = write(tmp_path / "a", changed(matrices(1), case), layout)

    def load() -> None:
        attach_loras(LlamaForCausalLM(model.config), [open_lora(folder)], CPU, torch.float32)

    error = refused(load)
    assert words in error.what
    assert str(folder) in error.where


def scaled(seed: int, by: float, matrix: str = "lora_B") -> dict[str, Tensor]:
    return {name: value * by if matrix in name else value for name, value in matrices(seed).items()}


@pytest.mark.parametrize(
    ("matrix", "by", "dtype", "loads"),
    [
        ("lora_B", 0.0, torch.float32, False),
        ("lora_A", 0.0, torch.float32, False),
        ("lora_B", 1e-30, torch.float32, False),
        ("lora_A", 1e-30, torch.float32, False),
        ("lora_B", 1e-3, torch.float32, True),
        ("lora_B", 1e-7, torch.float32, True),
        ("lora_B", 1e-7, torch.bfloat16, False),  # there, but lost in what the sum is rounded to
        ("lora_B", 0.1, torch.bfloat16, True),
    ],
)
def test_an_adapter_is_refused_exactly_where_it_changes_no_logit(
    model: LlamaForCausalLM, tmp_path: Path, matrix: str, by: float, dtype: torch.dtype, loads: bool
) -> None:
    folder = write(tmp_path / "a", scaled(1, by, matrix))
    base = model.to(dtype)

    def load() -> None:
        attach_loras(copy.deepcopy(base), [open_lora(folder)], CPU, dtype)

    if loads:
        load()
        return
    error = refused(load)
    assert "changes no logit" in error.what and str(folder) in error.where


def test_an_adapter_without_weight_of_its_own_is_refused(model: LlamaForCausalLM, tmp_path: Path) -> None:
    folder = write(tmp_path / "a", matrices(1), lora_alpha=0)
    assert (
        "no logit"
        in refused(lambda: attach_loras(copy.deepcopy(model), [open_lora(folder)], CPU, FLOAT)).what
    )


@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_several_adapters_each_is_judged_by_itself(
    model: LlamaForCausalLM, tmp_path: Path, place: int
) -> None:
    folders = [write(tmp_path / str(number), matrices(number)) for number in range(3)]
    idle = write(tmp_path / "idle", scaled(7, 1e-30))
    mixed = [*folders[:place], idle, *folders[place + 1 :]]
    error = refused(
        lambda: attach_loras(copy.deepcopy(model), [open_lora(folder) for folder in mixed], CPU, FLOAT)
    )
    assert str(idle) in error.where


def test_two_adapters_that_cancel_each_other_are_no_idle_ones(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    folders = [write(tmp_path / str(by), scaled(1, by)) for by in (1.0, -1.0)]
    plain = logits(model)
    names = attach_loras(model, [open_lora(folder) for folder in folders], CPU, FLOAT)
    assert names == ("adapter0", "adapter1")
    torch.testing.assert_close(logits(model), plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("by", [1.0, 1e-30])
def test_a_merged_adapter_is_judged_by_what_rounding_leaves_of_it(
    model: LlamaForCausalLM, tmp_path: Path, by: float
) -> None:
    """One with tensors of its own is merged: the sum is kept in the weights' own dtype."""
    own = {"base_model.model.lm_head.weight": model.lm_head.weight.detach().clone()}
    folder = write(tmp_path / "a", {**scaled(1, by), **own}, modules_to_save=["lm_head"])

    def load() -> LlamaForCausalLM:
        fresh = copy.deepcopy(model)
        fresh.lm_head.weight = torch.nn.Parameter(torch.empty(40, WIDTH, device="meta"))
        assert attach_loras(fresh, [open_lora(folder)], CPU, FLOAT) == ()
        return fresh

    if by == 1.0:
        assert not torch.equal(logits(load()), logits(model))
    else:
        assert "no logit" in refused(load).what


def test_judging_costs_one_short_run_for_each_adapter_and_one_without(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    tokens: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, named: tokens.append(named["input_ids"].numel()), with_kwargs=True
    )
    folders = [write(tmp_path / str(number), matrices(number)) for number in range(2)]
    attach_loras(model, [open_lora(folder) for folder in folders], CPU, FLOAT)
    assert len(tokens) == 3 and max(tokens) <= 16


@pytest.mark.parametrize(
    ("width", "layers", "words"),
    [(WIDTH * 2, LAYERS, f"{WIDTH * 2}x{WIDTH * 2}"), (WIDTH, LAYERS + 1, f"layers.{LAYERS}.")],
)
def test_another_models_shapes_are_refused_before_any_weight_is_read(
    model: LlamaForCausalLM, tmp_path: Path, width: int, layers: int, words: str
) -> None:
    adapter = open_lora(write(tmp_path / "a", matrices(1, width=width, layers=layers)))
    with torch.device("meta"):
        empty = LlamaForCausalLM(model.config)
    assert words in refused(lambda: check_lora_fit(empty, [adapter])).what
    check_lora_fit(empty, [open_lora(write(tmp_path / "b", matrices(1)))])


@pytest.mark.parametrize("zipped", [True, False])
def test_the_empty_file_that_early_training_scripts_saved_is_called_empty(
    tmp_path: Path, zipped: bool
) -> None:
    folder = write(tmp_path / "a", {})
    torch.save({}, folder / "adapter_model.bin", _use_new_zipfile_serialization=zipped)
    error = refused(lambda: open_lora(folder))
    assert "empty" in error.what and str((folder / "adapter_model.bin").stat().st_size) in error.what
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02" + bytes(441))
    assert "443 bytes" in refused(lambda: open_lora(folder)).what


def test_an_empty_safetensors_is_called_empty(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {}, "safetensors")
    assert "empty" in refused(lambda: open_lora(folder)).what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "PROMPT_TUNING"),
        ("bias", "all"),
        ("enable_lora", [True, False, True]),
        ("use_dora", True),
        ("layer_replication", [[0, 2]]),
        ("trainable_token_indices", [1]),
        ("r", "8"),
        ("r", 0),
        ("lora_alpha", "16"),
        ("target_modules", [3]),
        ("rank_pattern", [1]),
        ("modules_to_save", ["lm_head"]),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder = write(tmp_path / "a", matrices(1), **{key: value})
    error = refused(lambda: open_lora(folder))
    assert key in error.what
    assert str(folder) in error.where


@pytest.mark.parametrize("lacking", ["adapter_config.json", "adapter_model.bin"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, lacking: str) -> None:
    folder = write(tmp_path / "a", matrices(1))
    (folder / lacking).unlink()
    error = refused(lambda: open_lora(folder))
    assert "adapter" in error.what + error.remedy


def test_nothing_of_a_hostile_adapter_is_executed(tmp_path: Path) -> None:
    folder, marker = write(tmp_path / "a", matrices(1)), tmp_path / "executed"
    poison(folder / "adapter_model.bin", marker)
    assert "refused" in refused(lambda: open_lora(folder)).what
    torch.save({"x": RunsCommand(marker)}, folder / "adapter_model.bin", pickle_protocol=2)
    refused(lambda: open_lora(folder))
    assert not marker.exists()
