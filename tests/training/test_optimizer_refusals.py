"""Optimizers and precisions that cannot run here are refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from child_process import TORCH, child_environment, run_python
from launched import launch
from optimizer_models import CPU, FUSED, OPTIONS

from medchat.errors import UsageError
from medchat.training import optimizers
from medchat.training.optimizers import check_optimizer, precision_of

pytestmark = pytest.mark.torch


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
    launch(monkeypatch, 2)
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
    code = (
        "import sys\n"
        "for name in list(sys.modules):  # what this process was given\n"
        "    if name.startswith(('peft', 'bitsandbytes')): del sys.modules[name]\n"
        "import medchat.training.optimizers, medchat.training.update_rules\n"
        "sys.exit('bitsandbytes' in sys.modules)"
    )
    done = run_python("-c", code, environment=child_environment(), imported=TORCH)
    assert done.returncode == 0, done.stderr.decode()


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
