"""What wrapping programs put around the names of tensors is taken off, and then everything has to fit exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_miniatures import CPU, RANK, by_hand, logits, matrices, write
from checkpoint_files import write_weights
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from small_checkpoints import load_small, small_weights
from transformers import LlamaForCausalLM

from medchat.checkpoints.headers import plain_name, read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.checkpoints.lora_folder import open_lora
from medchat.errors import CheckpointError
from medchat.inference.adapters.lora import attach_loras

pytest_plugins = ("adapter_miniatures",)
pytestmark = pytest.mark.torch

WRAPPERS: dict[str, Callable[[str], str]] = {
    "DDP": lambda name: f"module.{name}",
    "compile": lambda name: f"_orig_mod.{name}",
    "peft twice": lambda name: f"base_model.model.{name}",
    "no peft": lambda name: name.removeprefix("base_model.model."),
    "DDP in compile in peft": lambda name: f"_orig_mod.module.base_model.model.{name}",
    "adapter name": lambda name: name.replace(".weight", ".default.weight"),
    "another adapter name": lambda name: name.replace(".weight", ".medical.weight"),
    "FSDP": lambda name: name.replace("layers.", "layers._fsdp_wrapped_module."),
    "all": lambda name: f"module.base_model.model.{name.replace('.weight', '.default.weight')}",
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_adapter_adds_exactly_what_the_plain_one_adds(
    model: LlamaForCausalLM, tmp_path: Path, wrapper: str
) -> None:
    weights = matrices(1)
    expected = by_hand(model, (weights, 16 / RANK))
    wrapped = {WRAPPERS[wrapper](name): value for name, value in weights.items()}
    assert wrapped.keys() != weights.keys()
    attach_loras(model, [open_lora(write(tmp_path / "a", wrapped))], CPU, torch.float32)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("fault", ["rank", "module", "missing"])
def test_behind_any_wrapper_the_fit_is_exact(
    model: LlamaForCausalLM, tmp_path: Path, wrapper: str, fault: str
) -> None:
    weights = matrices(1, rank=2 if fault == "rank" else RANK)
    if fault == "module":
        weights = {name.replace("q_proj", "ghost"): value for name, value in weights.items()}
    if fault == "missing":
        weights.popitem()
    wrapped = {WRAPPERS[wrapper](name): value for name, value in weights.items()}
    folder = write(tmp_path / "a", wrapped)
    refused(lambda: attach_loras(model, [open_lora(folder)], CPU, torch.float32))


def test_two_tensors_of_one_plain_name_are_refused(tmp_path: Path) -> None:
    weights = matrices(1)
    first = next(iter(weights))
    folder = write(tmp_path / "a", {**weights, f"module.{first}": weights[first]})
    assert "stored twice" in refused(lambda: open_lora(folder)).what


@pytest.mark.parametrize("layout", ["safetensors", "sharded-bin"])
@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "_fsdp_wrapped_module.module."])
def test_a_whole_model_loads_behind_its_wrappers_too(tmp_path: Path, front: str, layout: str) -> None:
    weights = small_weights()
    write_weights(tmp_path, {front + name: value for name, value in weights.items()}, layout)
    assert torch.equal(load_small(tmp_path).norm.bias, weights["norm.bias"])


@given(
    st.lists(st.sampled_from(["module.", "_orig_mod.", "base_model.model.", "_forward_module."]), max_size=6),
    st.sampled_from(["h.0.q.weight", "transformer.prefix_encoder.embedding.weight", "scale", "module"]),
)
def test_any_stack_of_wrappers_comes_off_and_nothing_else(stack: list[str], name: str) -> None:
    assert plain_name("".join(stack) + name) == name


def test_whole_modules_and_matrices_have_the_models_names() -> None:
    assert plain_name("base_model.model.lm_head.modules_to_save.default.weight") == "lm_head.weight"
    assert plain_name("base_model.model.lm_head.modules_to_save.weight") == "lm_head.weight"
    assert plain_name("base_model.model.h.q.lora_B.weight") == "h.q.lora_B.weight"
    assert plain_name("h.default.weight") == "h.default.weight"


@pytest.mark.parametrize("name", ["module." * 300_000, "lora_A." * 300_000, "." * 2_000_000])
def test_a_name_of_megabytes_takes_no_longer_than_its_length(name: str) -> None:
    before = time.monotonic()
    plain_name(name + "weight")
    assert time.monotonic() - before < 1


def test_an_index_may_name_the_wrapped_tensors(tmp_path: Path) -> None:
    write_weights(
        tmp_path, {f"module.{name}": value for name, value in small_weights().items()}, "sharded-bin"
    )
    assert set(read_headers(open_checkpoint(tmp_path))) == set(small_weights())
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace("module.scale", "scale"))
    with pytest.raises(CheckpointError):
        read_headers(open_checkpoint(tmp_path))
