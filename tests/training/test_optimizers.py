"""Optimizers of fine-tuning: what they update, how bfloat16 is rounded, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.optimization import Adafactor as LibraryAdafactor

from medchat.api import SFTOptions
from medchat.api.sft_options import OPTIMIZERS
from medchat.errors import UsageError
from medchat.training import optimizers, update_rules
from medchat.training.optimizers import PerParameterOptimizer, build_optimizer, check_optimizer, precision_of
from medchat.training.update_rules import noise_for, stochastic_round

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
OPTIONS = SFTOptions(
    model=Path("unused"),
    output=Path("unused"),
    learning_rate=2e-3,
    weight_decay=0.1,
    batch_size=4,
    micro_batch_size=4,
    seed=3,
)
FUSED = replace(OPTIONS, fused_backward=True, max_grad_norm=0.0)


def small_llama(dtype: torch.dtype = torch.float32, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        **settings,
    )
    return LlamaForCausalLM(config).to(dtype)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    """Train on made-up batches; the same numbers are the same batches."""
    for number in numbers:
        ids = torch.randint(0, 96, (4, 9), generator=torch.Generator().manual_seed(number))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        model.zero_grad()


def apart(left: nn.Module, right: nn.Module, first: Any, second: Any, count: int) -> float:
    """Give both the same made-up gradients; return how far their weights then are apart."""
    noise = torch.Generator().manual_seed(7)
    for _ in range(count):
        for one, other in zip(left.parameters(), right.parameters(), strict=True):
            one.grad = 0.1 * torch.randn(one.shape, generator=noise)
            other.grad = one.grad.clone()
        first.step()
        second.step()
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


# ---------------------------------------------------------------- rounding


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


# ---------------------------------------------------------------- the rules against the libraries'


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


# ---------------------------------------------------------------- the step inside the backward pass


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


# ---------------------------------------------------------------- saved state


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


# ---------------------------------------------------------------- what cannot run is refused


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({"batch_size": 8}, ("--fused-backward", "--batch-size", "--micro-batch-size")),
        ({"max_grad_norm": 1.0}, ("--fused-backward", "--max-grad-norm")),
    ],
)
def test_fused_backward_refuses_what_needs_all_gradients_together(
    change: dict[str, Any], flags: tuple[str, ...]
) -> None:
    check_optimizer(FUSED, CPU)
    with pytest.raises(UsageError) as caught:
        check_optimizer(replace(FUSED, **change), CPU)
    assert all(flag in caught.value.what for flag in flags)


def test_several_processes_refuse_what_needs_whole_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_optimizer(OPTIONS, CPU)
    check_optimizer(replace(OPTIONS, optimizer="adafactor", method="lora"), CPU)
    for wrong in (FUSED, replace(OPTIONS, optimizer="adafactor"), replace(OPTIONS, optimizer="adamw8bit")):
        with pytest.raises(UsageError):
            check_optimizer(wrong, CPU)


def test_8bit_adam_without_bitsandbytes_says_so_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    eight = replace(OPTIONS, optimizer="adamw8bit")
    check_optimizer(eight, CPU)  # bitsandbytes of constraints.txt has it for the CPU
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        check_optimizer(eight, CPU)
    assert "pip install bitsandbytes" in caught.value.remedy and "adafactor" in caught.value.remedy


def test_a_bitsandbytes_without_the_kernel_is_found_out_before_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import bitsandbytes.functional

    def missing(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(bitsandbytes.functional, "optimizer_update_8bit_blockwise", missing)
    optimizers.why_no_8bit.cache_clear()
    with pytest.raises(UsageError) as caught:
        check_optimizer(replace(OPTIONS, optimizer="adamw8bit"), CPU)
    assert "no kernel for this device" in caught.value.what and "--optimizer" in caught.value.remedy
    optimizers.why_no_8bit.cache_clear()


def test_bitsandbytes_is_imported_only_when_asked_for() -> None:
    import subprocess

    code = (
        "import sys, medchat.training.optimizers, medchat.training.update_rules\n"
        "sys.exit('bitsandbytes' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("change", [{"optimizer": "sgd"}, {"precision": "float16"}])
def test_unknown_names_are_refused_with_the_known_ones(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        check_optimizer(replace(OPTIONS, **change), CPU)
    assert "adamw" in caught.value.remedy or "bfloat16" in caught.value.remedy


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_is_mixed_only_where_bfloat16_is_native(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        optimizers, "pick_dtype", lambda wanted, device: torch.bfloat16 if native else torch.float32
    )
    precision = precision_of(OPTIONS, CPU)
    assert precision.name == ("mixed" if native else "float32")
    assert precision.weights is torch.float32 and precision.autocast is native
    assert precision.base is (torch.bfloat16 if native else torch.float32)
    assert precision_of(replace(OPTIONS, precision="bfloat16"), CPU).weights is torch.bfloat16
