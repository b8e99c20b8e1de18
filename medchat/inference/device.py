"""Which device and dtype a model computes in, and whether it fits there."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import nn

from medchat import launcher
from medchat.api import DEVICES_HELP, DTYPES
from medchat.errors import MemoryShortageError, UsageError
from medchat.language import say
from medchat.regular_files import SYSTEM_BYTES, read_regular

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
    """Return the bytes that this process can still take on `device` without swapping.

    On the CPU the smallest of: what the machine has free or reclaimable, what is left of every
    control group (container) around this process, what is left of the address space limit.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits: list[int] = [psutil.virtual_memory().available]
    if device.type == "mps":
        limits.append(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    limits += control_group_room()
    if sys.platform != "win32":
        import resource  # Unix only

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft - psutil.Process().memory_info().vms)
    return max(0, min(limits))


def control_group_room(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return limit minus use of each memory control group around this process; file cache counts as free."""
    try:
        lines = read_regular(own, SYSTEM_BYTES).decode("ascii").splitlines()
    except (OSError, ValueError):
        return []
    room = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, limit, use, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, cache = root / "memory", "total_inactive_file"
            limit, use = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            room += _room_of(folder, limit, use, cache)
    return room


def _stated(path: Path) -> str:
    return read_regular(path, SYSTEM_BYTES).decode("ascii")


def _room_of(folder: Path, limit: str, use: str, cache: str) -> list[int]:
    try:
        allowed = _stated(folder / limit).strip()
        if allowed == "max":
            return []
        used = int(_stated(folder / use))
        table = dict(line.split(maxsplit=1) for line in _stated(folder / "memory.stat").splitlines())
        return [int(allowed) - used + int(table.get(cache, 0))]
    except (OSError, ValueError):
        return []


# Saying that memory ran out while running, as the one error family does. Knows no models.

#: What torch's CPU allocator says in a plain RuntimeError.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def raise_on_oom(remedy: str = "", *, what: str = "") -> Iterator[None]:
    """Within this block a failed allocation raises MemoryShortageError, with `what` and `remedy` or the usual ones."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _shortage(what, remedy) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        raise _shortage(what, remedy) from error


def give_back_memory() -> None:
    """Let go of what nobody holds any more, on the graphics card too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _shortage(what: str, remedy: str) -> MemoryShortageError:
    return MemoryShortageError(
        what or say("运行中内存不足", "memory ran out while running"),
        remedy
        or say(
            "请缩短输入、调低 --max-new-tokens，或加上 --quantize int8 再试",
            "shorten the input, lower --max-new-tokens, or try --quantize int8",
        ),
    )
