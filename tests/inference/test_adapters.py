"""What adapters add to a model: switched, stacked, merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapter_miniatures import (
    CPU,
    RANK,
    TARGETS,
    by_hand,
    logits,
    matrices,
    write,
)
from transformers import LlamaForCausalLM

from medchat.checkpoints.lora_folder import open_lora
from medchat.inference.adapters.lora import activate, attach_lora, attach_loras, attached, merge

pytest_plugins = ("adapter_miniatures",)
pytestmark = pytest.mark.torch


@pytest.mark.parametrize("layout", ["bin", "legacy", "safetensors"])
def test_an_adapter_of_any_age_adds_exactly_its_delta(
    model: LlamaForCausalLM, tmp_path: Path, layout: str
) -> None:
    weights = matrices(1)
    expected = by_hand(model, (weights, 16 / RANK))
    plain = logits(model)
    attach_loras(model, [open_lora(write(tmp_path / "a", weights, layout))], CPU, torch.float32)
    assert not torch.allclose(plain, expected, atol=1e-2)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_a_config_of_today_means_the_same_as_one_of_2023(model: LlamaForCausalLM, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(4)
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=list(TARGETS), init_lora_weights=False)
    trained = get_peft_model(model, config).eval()
    expected = logits(trained)
    trained.save_pretrained(tmp_path / "a")
    base = trained.unload()
    attach_loras(base, [open_lora(tmp_path / "a")], CPU, torch.float32)
    torch.testing.assert_close(logits(base), expected)


def test_rank_patterns_and_rank_stabilised_scaling_are_kept(model: LlamaForCausalLM, tmp_path: Path) -> None:
    weights = matrices(1)
    folder = write(tmp_path / "a", weights, use_rslora=True)
    expected = by_hand(model, (weights, 16 / RANK**0.5))
    attach_loras(model, [open_lora(folder)], CPU, torch.float32)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_several_adapters_act_together_and_can_be_switched_live(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one, two = matrices(1), matrices(2, rank=2)
    plain = logits(model)
    expected = {
        names: by_hand(model, *[pair for pair in ((one, 4.0), (two, 3.0)) if pair[1] in scalings])
        for names, scalings in {
            ("adapter0",): (4.0,),
            ("adapter1",): (3.0,),
            ("adapter0", "adapter1"): (4.0, 3.0),
        }.items()
    }
    folders = [write(tmp_path / "a", one), write(tmp_path / "b", two, r=2, lora_alpha=6)]
    names = attach_loras(model, [open_lora(folder) for folder in folders], CPU, torch.float32)
    assert names == attached(model) == ("adapter0", "adapter1")
    torch.testing.assert_close(logits(model), expected[names], atol=1e-3, rtol=1e-3)
    for chosen, values in expected.items():
        activate(model, chosen)
        torch.testing.assert_close(logits(model), values, atol=1e-3, rtol=1e-3)
    activate(model, ())
    torch.testing.assert_close(logits(model), plain)


def test_a_merged_adapter_gives_the_same_logits_and_leaves_no_layer_behind(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one, two = matrices(1), matrices(2)
    expected = by_hand(model, (one, 4.0), (two, 4.0))
    kinds = [type(module) for module in model.modules()]
    attach_lora(model, open_lora(write(tmp_path / "a", one)), CPU, torch.float32, "a")
    assert merge(model, "a")
    assert [type(module) for module in model.modules()] == kinds
    attach_lora(model, open_lora(write(tmp_path / "b", two)), CPU, torch.float32, "b")
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_merging_under_another_adapter_leaves_that_one_switchable(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    one, two = matrices(1), matrices(2)
    without, together = by_hand(model, (one, 4.0)), by_hand(model, (one, 4.0), (two, 4.0))
    for name, weights in (("a", one), ("b", two)):
        attach_lora(model, open_lora(write(tmp_path / name, weights)), CPU, torch.float32, name)
    assert merge(model, "a")
    assert attached(model) == ("b",)
    for names, expected in ((("b",), together), ((), without), (("b",), together)):
        activate(model, names)
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_lora_stays_float32_over_a_model_in_half_precision(model: LlamaForCausalLM, tmp_path: Path) -> None:
    model = model.to(torch.bfloat16)
    attach_loras(model, [open_lora(write(tmp_path / "a", matrices(1)))], CPU, torch.bfloat16)
    dtypes = {parameter.dtype for name, parameter in model.named_parameters() if ".lora_" in name}
    assert dtypes == {torch.float32}
    assert logits(model).dtype == torch.bfloat16


def test_modules_are_read_from_the_tensors_where_the_config_names_none(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    adapter = open_lora(write(tmp_path / "a", matrices(1), target_modules=None))
    assert adapter.settings["target_modules"] == list(TARGETS)
    attach_loras(model, [adapter], CPU, torch.float32)
