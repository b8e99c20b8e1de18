"""Which device and dtype a model computes in, and whether it fits there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from medchat import launcher
from medchat.api import DEVICES_HELP, DTYPES
from medchat.errors import MemoryShortageError, UsageError
from medchat.inference.machine import memory_room
from medchat.language import say

_DEVICE = re.compile(r"cpu|mps|cuda(?::\d+)?")
#: Room beside the weights for activations, the cache of a first answer and the allocator.
_MARGIN_SHARE, _MARGIN_BYTES = 0.03, 64 * 2**20


def pick_device(wanted: str) -> torch.device:
    """Return the device for `auto|cpu|cuda[:N]|mps`; auto takes a GPU where there is one.

    `auto` and `cuda` mean this process's own GPU where `torchrun` started several on one machine.
    Raises UsageError for any other word and for a device that this machine or this torch lacks.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", _own_gpu())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not _DEVICE.fullmatch(wanted):
        raise UsageError(
            say(f"--device 的值“{wanted}”无效", f"--device {wanted!r} is not valid"),
            say(f"可用的值：{DEVICES_HELP}", f"valid values: {DEVICES_HELP}"),
        )
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise _no_device(wanted, say(f"找到 {count} 块 CUDA 显卡", f"{count} CUDA devices found"))
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise _no_device(wanted, say("没有可用的 Apple GPU", "no Apple GPU available"))
    if device.type == "cuda":
        return torch.device("cuda", _own_gpu() if device.index is None else device.index)
    return device


def _own_gpu() -> int:
    """The GPU of this process: its own where a launcher numbered the processes of this machine."""
    number = launcher.local_rank()
    return torch.cuda.current_device() if number is None else number % torch.cuda.device_count()


def _no_device(wanted: str, found: str) -> UsageError:
    return UsageError(
        say(f"本机无法使用 --device {wanted}：{found}", f"--device {wanted} cannot be used here: {found}"),
        say("请改用 --device auto 或 --device cpu", "use --device auto or --device cpu"),
    )


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the compute dtype for `auto|float32|bfloat16|float16` on `device`.

    auto: bfloat16 where the device has instructions for it (CUDA from compute capability 8, CPUs with
    AVX512-BF16, AMX or ARM's bf16), float16 on older CUDA devices and on Apple GPUs, float32 else.
    Raises UsageError for any other word.
    """
    if wanted not in DTYPES:
        raise UsageError(
            say(f"--dtype 的值“{wanted}”无效", f"--dtype {wanted!r} is not valid"),
            say(f"可用的值：{'|'.join(DTYPES)}", f"valid values: {'|'.join(DTYPES)}"),
        )
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of `model` are: where its first is."""
    return next(model.parameters()).device


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the dtype of the first floating parameter of `model`: what it computes in."""
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())


def _cpu_has_bfloat16() -> bool:
    # oneDNN also "supports" bfloat16 on every AVX512 machine, by emulation slower than float32.
    # The first releases this project accepts cannot be asked; float32 is right there, only slower.
    ask = getattr(torch.cpu, "get_capabilities", dict)
    capabilities: Mapping[str, Any] = ask()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def ensure_memory(needed: int, device: torch.device) -> None:
    """Raise MemoryShortageError if weights of `needed` bytes will not fit on `device`."""
    available = available_memory(device)
    wanted = int(needed * (1 + _MARGIN_SHARE)) + min(_MARGIN_BYTES, needed)
    if wanted <= available:
        return
    raise MemoryShortageError(
        say(
            f"内存不足：加载需要约 {_gib(wanted)}，{device} 上可用 {_gib(available)}",
            f"not enough memory: loading needs about {_gib(wanted)}, {device} has {_gib(available)}",
        ),
        say(
            "请加上 --quantize int8 或 int4、--dtype bfloat16，或换用 --device cpu",
            "use --quantize int8 or int4, --dtype bfloat16, or --device cpu",
        )
        if device.type != "cpu"
        else say(
            "请加上 --quantize int8 或 int4、--dtype bfloat16，或关闭其他程序",
            "use --quantize int8 or int4, --dtype bfloat16, or close other programs",
        ),
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def available_memory(device: torch.device) -> int:
    """Return the bytes that this process can still take on `device` without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    room = memory_room()
    if device.type == "mps":
        room = min(room, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return max(0, room)
