"""Every layout of a ChatGLM checkpoint loads to the same model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chatglm_variants import HEAD, config_of, load, logits, tensors_of, variant
from checkpoint_files import LAYOUTS
from goldens import golden_folders, model_of
from medchat_chatglm.config_file import PositionRule
from medchat_chatglm.configuration import read_configuration
from medchat_chatglm.inspection import inspect_chatglm
from medchat_chatglm.loading import load_weights
from refusals import refused

from medchat.api import LoadOptions
from medchat.errors import CheckpointError, UsageError
from medchat.inference.engine import parameter_count

pytest_plugins = ("chatglm_variants",)
pytestmark = pytest.mark.torch

# ---------------------------------------------------------------- recorded checkpoints


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_a_recorded_checkpoint_gives_the_logits_of_a_direct_load(folder: Path) -> None:
    for rule in PositionRule:
        options = LoadOptions(folder, device="cpu", dtype="float32", extra={"rule": str(rule)})
        loaded = load_weights(options)
        direct = model_of(folder, rule, torch.float32)
        assert loaded.config.rule == rule
        assert torch.equal(logits(loaded.model, loaded.config), logits(direct, loaded.config))


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_a_recorded_checkpoint_is_described_as_it_loads(folder: Path) -> None:
    card = inspect_chatglm(folder)
    assert card is not None
    model = load_weights(LoadOptions(folder, device="cpu", dtype="float32")).model
    prefix = sum(value.numel() for name, value in model.named_parameters() if "prefix_encoder" in name)
    assert card.parameters == parameter_count(model) - prefix
    assert (card.vocab_size, card.layers, card.hidden_size) == (
        model.config.vocab_size,
        model.config.num_layers,
        model.config.hidden_size,
    )
    bits = model.config.quantization_bit
    assert card.quantization == (f"int{bits}" if bits else "none")


# ---------------------------------------------------------------- layouts and variants


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_to_the_same_logits(tiny: Path, tmp_path: Path, layout: str) -> None:
    expected = load(tiny)
    loaded = load(variant(tiny, tmp_path / "model", layout=layout))
    assert torch.equal(logits(loaded.model, loaded.config), logits(expected.model, expected.config))
    assert loaded.tokenizer.encode("你好") == expected.tokenizer.encode("你好")
    assert not loaded.model.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_fine_tuned_files_of_one_dtype_without_tables_and_head_load(
    tiny: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    weights = {
        name: tensor.to(dtype)
        for name, tensor in tensors_of(tiny).items()
        if name != HEAD and not name.endswith("inv_freq")
    }
    expected, loaded = load(tiny), load(variant(tiny, tmp_path / "model", weights, "sharded-bin"))
    assert torch.equal(logits(loaded.model, loaded.config), logits(expected.model, expected.config))
    assert loaded.notes == ()


def test_broken_tables_are_never_read(tiny: Path, tmp_path: Path) -> None:
    weights = {
        name: torch.full_like(tensor, float("nan")) if name.endswith("inv_freq") else tensor
        for name, tensor in tensors_of(tiny).items()
    }
    loaded = load(variant(tiny, tmp_path / "model", weights))
    assert logits(loaded.model, loaded.config).isfinite().all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_norms_in_float32_and_ties_the_head(tiny: Path, dtype: str) -> None:
    loaded = load(tiny, dtype=dtype)
    model = loaded.model
    assert loaded.dtype == getattr(torch, dtype) == model.dtype
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if "layernorm" in name else loaded.dtype), name
    assert logits(model, loaded.config).isfinite().all()


def test_a_head_that_differs_is_used_only_when_untied_and_told_otherwise(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    weights[HEAD] = -weights[HEAD]
    tied = load(variant(tiny, tmp_path / "tied", weights))
    untied = load(variant(tiny, tmp_path / "untied", weights, tie_word_embeddings=False))
    assert len(tied.notes) == 1 and "tie_word_embeddings" in tied.notes[0]
    assert untied.notes == ()
    assert torch.allclose(logits(tied.model, tied.config), -logits(untied.model, untied.config))


@pytest.mark.parametrize("row", [0, 5, -1])
def test_nan_in_a_head_that_is_stored_but_tied_is_refused_too(tiny: Path, tmp_path: Path, row: int) -> None:
    weights = tensors_of(tiny)
    weights[HEAD] = weights[HEAD].clone()
    weights[HEAD][row, 1] = float("nan")
    with pytest.raises(CheckpointError) as refused:
        load(variant(tiny, tmp_path / "model", weights))
    assert refused.value.exit_code == 3 and HEAD in refused.value.what and "NaN" in refused.value.what


def test_a_head_that_differs_in_one_value_is_told(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    weights[HEAD] = weights[HEAD].clone()
    weights[HEAD][7, 1] += 1
    assert len(load(variant(tiny, tmp_path / "model", weights)).notes) == 1


def test_an_untied_head_is_required(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    del weights[HEAD]
    folder = variant(tiny, tmp_path / "model", weights, tie_word_embeddings=False)
    assert HEAD in refused(lambda: load(folder)).what


def test_an_old_configuration_without_mask_ids_gets_those_of_its_generation(tiny_v0: Path) -> None:
    assert "mask_token_id" not in config_of(tiny_v0)
    loaded = load(tiny_v0)
    assert loaded.config.gmask_token_id == loaded.tokenizer.id_of("[gMASK]")
    assert loaded.config.rule == PositionRule.MED


@pytest.mark.parametrize("rule", list(PositionRule))
def test_the_rule_option_goes_before_the_configuration(
    tiny: Path, tmp_path: Path, rule: PositionRule
) -> None:
    folder = variant(tiny, tmp_path / "model", medchat_position_rule="upstream_v0")
    assert read_configuration(folder).rule == PositionRule.UPSTREAM_V0
    assert read_configuration(folder, {"rule": str(rule)}).rule == rule


def test_an_unknown_rule_is_wrong_usage(tiny: Path) -> None:
    error = refused(lambda: load(tiny, extra={"rule": "v2"}), UsageError, 2)
    assert "med_demo" in error.remedy
