"""The optimizer parameter by parameter: its step inside the backward pass, and its saved state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optimizer_models import FUSED, OPTIONS, same, small_llama, steps
from torch import Tensor

from medchat.api.sft_options import OPTIMIZERS
from medchat.training.optimizers import PerParameterOptimizer, build_optimizer

pytestmark = pytest.mark.torch


def test_fused_backward_is_bit_equal_to_plain_adamw_and_frees_each_gradient_at_once() -> None:
    plain, fused = small_llama(), small_llama()
    steps(plain, build_optimizer(plain, OPTIONS), range(6))
    optimizer = build_optimizer(fused, FUSED)
    sizes = {id(parameter): parameter.nbytes for parameter in fused.parameters()}
    most = 0

    def watch(_: Tensor) -> None:
        nonlocal most
        alive = [id(parameter) for parameter in fused.parameters() if parameter.grad is not None]
        most = max(most, sum(sizes[one] for one in alive))

    for parameter in fused.parameters():
        parameter.register_hook(watch)  # before each parameter's own gradient is kept
    steps(fused, optimizer, range(6))
    assert same(plain, fused)
    assert all(parameter.grad is None for parameter in fused.parameters())
    assert most <= max(sizes.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_fused_backward_equals_the_same_optimizer_without_it(
    name: str, dtype: torch.dtype, tied: bool
) -> None:
    plain, fused = (small_llama(dtype, tie_word_embeddings=tied) for _ in range(2))
    chosen = {"optimizer": name}
    steps(plain, build_optimizer(plain, replace(OPTIONS, **chosen)), range(4))  # type: ignore[arg-type]
    steps(fused, build_optimizer(fused, replace(FUSED, **chosen)), range(4))  # type: ignore[arg-type]
    assert same(plain, fused)


def test_a_schedule_reaches_the_step_inside_the_backward_pass() -> None:
    models = small_llama(), small_llama()
    for model, options in zip(models, (OPTIONS, FUSED), strict=True):
        optimizer = build_optimizer(model, options)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for number in range(4):
            steps(model, optimizer, range(number, number + 1))
            schedule.step()
    assert same(*models)


def test_the_model_does_not_keep_the_optimizer_alive_after_training() -> None:
    import gc
    import weakref

    model = small_llama()
    optimizer = build_optimizer(model, FUSED)
    seen = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True])
def test_a_saved_state_goes_on_bit_for_bit(
    name: str, dtype: torch.dtype, fused: bool, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    options = replace(FUSED if fused else OPTIONS, optimizer=name)
    whole, resumed = small_llama(dtype), small_llama(dtype)
    optimizer = build_optimizer(whole, options)
    steps(whole, optimizer, range(3))
    saved = optimizer.state_dict()
    tensors = {
        f"{number}/{key}": value for number, state in saved["state"].items() for key, value in state.items()
    }
    assert all(isinstance(value, Tensor) for value in tensors.values())
    save_file(tensors, tmp_path / "optimizer.safetensors")  # refuses tensors that share memory
    resumed.load_state_dict(whole.state_dict())
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(tmp_path / "optimizer.safetensors").items():
        number, field = key.split("/")
        state.setdefault(int(number), {})[field] = value
    again = build_optimizer(resumed, options)
    again.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    steps(whole, optimizer, range(3, 6))
    steps(resumed, again, range(3, 6))
    assert same(whole, resumed)
    loaded = again.state_dict()["state"]
    for number, values in optimizer.state_dict()["state"].items():
        assert all(torch.equal(values[key], loaded[number][key]) for key in values)
        assert all(values[key].dtype == loaded[number][key].dtype for key in values)


def test_a_state_of_other_parameters_is_refused() -> None:
    optimizer = build_optimizer(small_llama(), FUSED)
    other = build_optimizer(small_llama(attention_bias=True), FUSED)
    assert isinstance(optimizer, PerParameterOptimizer)
    with pytest.raises(ValueError, match="other parameter groups"):
        optimizer.load_state_dict(other.state_dict())
