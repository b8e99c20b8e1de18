"""Quantised weights, P-tuning prefixes and rotary tables of ChatGLM against recorded numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import (
    HIDDEN,
    LOGITS,
    assert_close,
    golden_folders,
    goldens_root,
    keys_of,
    model_of,
    stored_weights,
    tensors_of,
)
from medchat_chatglm.config_file import PositionRule
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.quantised import dequantize_blocks
from medchat_chatglm.rotary import inverse_frequencies, turn_table
from medchat_chatglm.stepper import ChatGLMStepper
from safetensors.torch import load_file

from medchat.inference.quantization import dequantize_rows, pack_rows, quantize_rows, unpack_rows

pytestmark = [pytest.mark.golden, pytest.mark.torch]


def bits_of(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_bit") or 0)


QUANTISED = [folder for folder in golden_folders() if bits_of(folder)]
PREFIXED = [folder for folder in golden_folders() if "prefix_past_key_values" in keys_of(folder)]


def packed_names(folder: Path) -> list[str]:
    return [name.removesuffix("_scale") for name in stored_weights(folder) if name.endswith(".weight_scale")]


def recorded_dense() -> list[Any]:
    return [
        pytest.param(folder, key.removeprefix("dequantized."), id=f"{folder.name}-{key}")
        for folder in QUANTISED
        for key in keys_of(folder)
        if key.startswith("dequantized.")
    ]


@pytest.mark.parametrize(("folder", "name"), recorded_dense())
def test_packed_weights_expand_exactly(folder: Path, name: str) -> None:
    weights, recorded = stored_weights(folder), tensors_of(folder)[f"dequantized.{name}"]
    dense = dequantize_rows(weights[name], weights[f"{name}_scale"], bits_of(folder))
    assert torch.equal(dense, recorded)
    held = model_of(folder, PositionRule.V11, torch.float32).get_submodule(name.removesuffix(".weight"))
    assert torch.equal(held.dense_weight(), recorded)


@pytest.mark.parametrize("folder", QUANTISED, ids=lambda folder: folder.name)
def test_packing_is_the_inverse_of_unpacking(folder: Path) -> None:
    bits, weights = bits_of(folder), stored_weights(folder)
    assert packed_names(folder)
    for name in packed_names(folder):
        assert torch.equal(pack_rows(unpack_rows(weights[name], bits), bits), weights[name])


@pytest.mark.parametrize("folder", QUANTISED, ids=lambda folder: folder.name)
def test_quantising_the_float16_weights_gives_the_recorded_bytes(folder: Path) -> None:
    # The set documents which model it quantised: that of the same generation called "small".
    source = folder.with_name(f"{folder.name.split('_')[0]}_small")
    if not source.is_dir():
        pytest.skip(f"{source.name}, the model that was quantised, is not in this set")
    dense, packed = stored_weights(source), stored_weights(folder)
    for name in packed_names(folder):
        made, scale = quantize_rows(dense[name].half(), bits_of(folder))
        assert torch.equal(made, packed[name]), name
        assert torch.equal(scale, packed[f"{name}_scale"]), name


@pytest.mark.parametrize("folder", QUANTISED, ids=lambda folder: folder.name)
def test_a_model_made_dense_again_gives_the_same_logits(folder: Path) -> None:
    model_of.cache_clear()
    model = model_of(folder, PositionRule.V11, torch.float32)
    prompt = tensors_of(folder)["prefill_gmask.input_ids"][0].tolist()
    packed = ChatGLMStepper(model).prefill(prompt).clone()
    assert dequantize_blocks(model) == len(packed_names(folder))
    assert model.config.quantization_bit == 0
    dense = ChatGLMStepper(model).prefill(prompt)
    model_of.cache_clear()
    assert_close(dense, packed, LOGITS, "logits")


@pytest.mark.parametrize("folder", PREFIXED, ids=lambda folder: folder.name)
def test_the_prefix_encoder_makes_the_recorded_cache(folder: Path) -> None:
    encoder = model_of(folder, PositionRule.V11, torch.float32).transformer.prefix_encoder
    with torch.inference_mode():
        made = encoder(1, torch.float32)
    # Recorded as [L, 2, n, 1, heads, d].
    stacked = torch.stack([torch.stack(pair) for pair in made]).permute(0, 1, 4, 2, 3, 5)
    assert_close(stacked, tensors_of(folder)["prefix_past_key_values"], HIDDEN, "prefix cache")


def rotary() -> tuple[dict[str, torch.Tensor], int]:
    folder = goldens_root() / "chatglm" / "rotary"
    if not folder.is_dir():
        pytest.skip("no rotary tables in this set")
    width = json.loads((folder / "rotary.json").read_text(encoding="utf-8"))["dim"]
    return load_file(folder / "rotary.safetensors"), int(width)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_rotary_tables_are_the_recorded_ones(precision: torch.dtype) -> None:
    tables, width = rotary()
    kind = "fp32" if precision == torch.float32 else "fp16"
    recorded = {name: tables[f"{kind}.{name}"] for name in ("cos", "sin", "inv_freq")}
    positions = tables.get(f"{kind}.positions", torch.arange(len(recorded["cos"])))
    cosine, sine = turn_table(positions, width, precision)
    assert torch.equal(inverse_frequencies(width).to(precision), recorded["inv_freq"])
    # One unit in the last place of the table's own precision.
    assert cosine.dtype == sine.dtype == precision
    assert_close(cosine, recorded["cos"], torch.finfo(precision).eps, "cosine")
    assert_close(sine, recorded["sin"], torch.finfo(precision).eps, "sine")


@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_every_configuration_of_the_set_survives_saving(folder: Path, tmp_path: Path) -> None:
    config = ChatGLMConfig.from_pretrained(folder)
    config.save_pretrained(tmp_path)
    again = ChatGLMConfig.from_pretrained(tmp_path)
    kept = config.to_dict().keys() - {"_name_or_path", "transformers_version"}
    assert {key: again.to_dict()[key] for key in kept} == {key: config.to_dict()[key] for key in kept}
    assert (again.generation, again.rule) == (config.generation, config.rule)
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
