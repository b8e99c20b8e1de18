"""The update rules: how bfloat16 is rounded, and that they are the libraries' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_models import CPU, OPTIONS, apart, same, small_llama, steps
from torch import Tensor, nn
from transformers.optimization import Adafactor as LibraryAdafactor

from medchat.api.sft_options import OPTIMIZERS
from medchat.training import update_rules
from medchat.training.optimizers import build_optimizer
from medchat.training.update_rules import noise_for, stochastic_round

pytestmark = pytest.mark.torch


@given(st.floats(width=32, allow_nan=True, allow_infinity=True), st.integers(0, 2**32))
@settings(max_examples=300)
def test_a_value_becomes_one_of_its_two_neighbours_in_bfloat16(value: float, seed: int) -> None:
    tensor = torch.full((64,), value)
    rounded = stochastic_round(tensor, torch.Generator().manual_seed(seed))
    if value != value:
        assert rounded.isnan().all()
        return
    down = (tensor.view(torch.int32) & -65536).view(torch.float32)
    up = ((tensor.view(torch.int32) & -65536) + 65536).view(torch.float32)
    expected = (rounded.float() == down) | ((rounded.float() == up) & (down != tensor))
    assert (expected | (rounded.float() == tensor)).all()
    assert rounded.isinf().all() == tensor.isinf().all() or abs(value) > 3.3e38


@pytest.mark.parametrize("value", [0.02 + 2e-5, -0.02 - 2e-5, 1.0 + 1e-4, -3e-7 * 1.001])
def test_rounding_is_right_on_average(value: float) -> None:
    count = 400_000
    tensor = torch.full((count,), value)
    mean = stochastic_round(tensor, noise_for(CPU, 1)).double().mean()
    gap = abs(value) * 2**-7
    assert abs(mean - float(tensor[0])) < 5 * gap / 2 / count**0.5


def test_noise_is_a_matter_of_its_numbers_alone() -> None:
    draws = [torch.rand(8, generator=noise_for(CPU, *numbers)) for numbers in ((1, 2, 3), (1, 2, 3), (1, 23))]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_weight_that_nearest_rounding_pins_moves_as_far_as_it_should(name: str) -> None:
    """At lr 2e-5 a bfloat16 weight of 0.02 does not move in 100 steps (docs/specs/training.md, "Memory")."""
    options = replace(OPTIONS, optimizer=name, learning_rate=2e-5, weight_decay=0.0)

    def moved(make: Callable[[nn.Module], torch.optim.Optimizer], dtype: torch.dtype) -> Tensor:
        model = nn.Linear(128, 128, bias=False).to(dtype)
        nn.init.constant_(model.weight, 0.02)
        start = model.weight.detach().double().clone()
        optimizer = make(model)
        for _ in range(100):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
        return start - model.weight.detach().double()

    pinned = moved(
        lambda model: torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0), torch.bfloat16
    )
    assert not pinned.any()
    exact = float(moved(lambda model: build_optimizer(model, options), torch.float32).mean())
    assert exact == pytest.approx(100 * 2e-5, rel=0.02)
    rounded = moved(lambda model: build_optimizer(model, options), torch.bfloat16)
    assert float(rounded.mean()) == pytest.approx(exact, rel=0.02)


def test_the_second_moment_decays_in_bfloat16_too() -> None:
    """0.999 of a bfloat16 number is that number again when rounded to the nearest."""
    model = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    optimizer = build_optimizer(model, replace(OPTIONS, learning_rate=1e-6))
    for step in range(300):
        model.weight.grad = torch.full_like(model.weight, 1.0 if step == 0 else 0.0)
        optimizer.step()
    square = optimizer.state[model.weight]["exp_avg_sq"]
    assert square.dtype is torch.bfloat16
    assert float(square.double().mean()) == pytest.approx(1e-3 * 0.999**299, rel=0.02)


def test_adamw_is_torchs_and_spares_norms_and_biases_from_decay() -> None:
    model, plain = small_llama(attention_bias=True), small_llama(attention_bias=True)
    optimizer = build_optimizer(model, OPTIONS)
    assert isinstance(optimizer, torch.optim.AdamW)
    decayed, spared = optimizer.param_groups
    assert {group["weight_decay"] for group in (decayed, spared)} == {0.1, 0.0}
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in spared["params"]:
        assert "norm" in by_id[id(parameter)] or by_id[id(parameter)].endswith("bias")
    assert len(spared["params"]) == 2 * 2 + 1 + 2 * 4
    reference = torch.optim.AdamW(
        [
            {"params": [p for n, p in plain.named_parameters() if "norm" not in n and "bias" not in n]},
            {
                "params": [p for n, p in plain.named_parameters() if "norm" in n or "bias" in n],
                "weight_decay": 0,
            },
        ],
        lr=2e-3,
        weight_decay=0.1,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    start = small_llama(attention_bias=True)
    assert apart(model, plain, optimizer, reference, 5) < 1e-7
    assert not same(start, model)


def test_adafactor_is_transformers_adafactor_as_the_trainer_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_rules, "SLICE_CPU", 1000)  # several slices, uneven ones
    model, plain = small_llama(), small_llama()
    options = replace(OPTIONS, optimizer="adafactor", weight_decay=0.0)
    reference = LibraryAdafactor(
        plain.parameters(), lr=2e-3, scale_parameter=False, relative_step=False, warmup_init=False
    )
    assert apart(model, plain, build_optimizer(model, options), reference, 5) < 1e-6


def test_8bit_adam_is_bitsandbytes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    monkeypatch.setattr(update_rules, "SLICE_CPU", 2048)
    model, plain = small_llama(), small_llama()
    options = replace(OPTIONS, optimizer="adamw8bit", weight_decay=0.0)
    optimizer = build_optimizer(model, options)
    reference = bitsandbytes.optim.AdamW8bit(plain.parameters(), lr=2e-3, weight_decay=0.0)
    assert apart(model, plain, optimizer, reference, 5) < 1e-7
    kinds = {state["state1"].dtype for state in optimizer.state.values() if "state1" in state}
    assert kinds == {torch.uint8}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_change_nothing(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for bfloat16's noise, which is drawn slice by slice, and Adafactor's order of sums."""
    options = replace(OPTIONS, optimizer=name, fused_backward=True, max_grad_norm=0.0)
    whole, sliced = small_llama(dtype), small_llama(dtype)
    steps(whole, build_optimizer(whole, options), range(3))
    monkeypatch.setattr(update_rules, "SLICE_CPU", 1024)
    steps(sliced, build_optimizer(sliced, options), range(3))
    if dtype is torch.float32 and name != "adafactor":
        assert same(whole, sliced)
    for one, other in zip(whole.parameters(), sliced.parameters(), strict=True):
        tolerance = 1e-5 if dtype is torch.float32 else 0.02
        assert torch.allclose(one, other, rtol=tolerance, atol=1e-5 if tolerance < 0.01 else 0.01)
