"""Memory that training frees on the CPU is the system's again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from child_process import TORCH, child_environment, run_python

from medchat.training import malloc_tuning as heap

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")

#: Large blocks among small ones that stay, freed and asked for again as a training step does.
_STEPS = """
import ctypes, sys
from pathlib import Path
if sys.argv[1] == "handed back":
    from medchat.training.malloc_tuning import trim_malloc
    assert trim_malloc()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.free.argtypes, libc.memset.argtypes = (ctypes.c_void_p,), (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
def taken(size):
    place = libc.malloc(size)
    libc.memset(place, 1, size)
    return place
libc.free(taken(30 << 20))
blocks = []
for _ in range(20):
    blocks.append(taken(12 << 20))
    taken(100_000)
for place in blocks:
    libc.free(place)
print(int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) >> 10)
"""


def resident_mib(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", _STEPS, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_tensors_leave_the_process_though_small_things_lie_among_them() -> None:
    kept, handed_back = resident_mib("kept"), resident_mib("handed back")
    assert kept > 200  # else there is no trouble to cure, and the module should go
    assert handed_back < kept - 200


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.platform, "libc_ver", lambda: ("", ""))
    assert heap.trim_malloc() is False


_SHAPES = """
import sys, torch
from pathlib import Path
from medchat.training.malloc_tuning import limit_onednn_cache
if sys.argv[1] == "few":
    limit_onednn_cache()
torch.set_num_threads(1)
weight = torch.randn(64, 64).bfloat16()
for rows in range(1, 1000):
    torch.nn.functional.linear(torch.randn(rows, 64).bfloat16(), weight)
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
"""


@pytest.mark.torch
@pytest.mark.slow
def test_batches_of_all_lengths_do_not_fill_the_memory_with_kernels() -> None:
    torch = pytest.importorskip("torch")
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("no bfloat16 kernels for this processor")
    # Runs of other tests in this process have set the limit here.
    plain = {name: value for name, value in child_environment().items() if not name.endswith("_CAPACITY")}
    many, few = (
        int(run_python("-c", _SHAPES, word, environment=plain, imported=TORCH).stdout)
        for word in ("many", "few")
    )
    assert many > few + 200, "else there is no trouble to cure, and the limit should go"
