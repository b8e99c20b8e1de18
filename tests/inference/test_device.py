"""Devices, dtypes and memory, said before they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import write_weights
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT
from small_checkpoints import CPU, load_small, small_weights
from torch import Tensor

from medchat.checkpoints.weight_files import is_text
from medchat.errors import MedchatError, MemoryShortageError, UsageError
from medchat.inference import device as device_module
from medchat.inference.device import ensure_memory, pick_device, pick_dtype

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "CPU", "", "cuda:99", "mps:1"])
def test_an_impossible_device_is_wrong_usage(wanted: str) -> None:
    with pytest.raises(UsageError) as info:
        pick_device(wanted)
    assert info.value.exit_code == 2 and info.value.remedy


def test_auto_is_a_device_and_a_dtype_that_compute() -> None:
    device = pick_device("auto")
    dtype = pick_dtype("auto", device)
    ones = torch.ones(4, 4, dtype=dtype, device=device)
    assert float((ones @ ones).sum()) == 64


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("avx512_bf16", torch.bfloat16), ("bf16", torch.bfloat16), ("avx512_f", torch.float32)],
)
def test_auto_on_a_cpu_is_bfloat16_only_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert pick_dtype("auto", CPU) == dtype
    assert pick_dtype("float16", CPU) == torch.float16


def test_an_unknown_dtype_is_wrong_usage() -> None:
    with pytest.raises(UsageError):
        pick_dtype("int8", CPU)


def test_a_model_too_large_is_refused_with_need_room_and_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "available_memory", lambda _: 4 * 2**30)
    ensure_memory(3 * 2**30, CPU)
    with pytest.raises(MemoryShortageError) as info:
        ensure_memory(12 * 2**30, CPU)
    assert info.value.exit_code == 4
    assert "12.4 GiB" in info.value.what and "4.0 GiB" in info.value.what and "int4" in info.value.remedy


def test_an_address_space_limit_is_an_error_of_ours_before_or_while_loading(tmp_path: Path) -> None:
    program = (
        "import resource, torch\n"
        "from medchat.inference.device import ensure_memory, available_memory\n"
        "import psutil\n"
        "resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**28,) * 2)\n"
        "assert available_memory(torch.device('cpu')) <= 2**28\n"
        "ensure_memory(2**30, torch.device('cpu'))"
    )
    root = str(ROOT)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert "MemoryShortageError" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_an_allocation_that_fails_while_loading_is_a_memory_shortage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_weights(tmp_path, small_weights(), "safetensors")

    def fail(*_: object, **__: object) -> Tensor:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("medchat.inference.load_weights.read_tensors", fail)
        with pytest.raises(MemoryShortageError):
            load_small(tmp_path)
    with monkeypatch.context() as patch:  # any other failure is a defect and stays visible
        error.args = ("something else",)
        patch.setattr("medchat.inference.load_weights.read_tensors", fail)
        with pytest.raises(type(error) if not isinstance(error, MemoryError) else MedchatError):
            load_small(tmp_path)


@given(st.binary(min_size=1, max_size=64))
def test_text_is_never_taken_for_weights(content: bytes) -> None:
    assert not is_text(b"\x80\x02" + content) or b"\x02" not in content
    assert is_text("药".encode() * 200 + "病".encode()[:1])
