"""What cpm-kernels can still do for this model: expand int8 weights to float16 on the GPUs it was built for.

Its machine code covers compute capability 6.1 to 8.6 (no PTX, so nothing newer runs it); it needs
`pkg_resources`, and importing it fails where the CUDA toolkit is installed without a driver. So it is
imported only when such a GPU holds the weights, and whenever it cannot serve, torch does the same
arithmetic. The package has no int4 kernel: int4 reaches it as int8 nibbles.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

#: Compute capabilities that the package ships machine code for (cpm-kernels 1.0.11).
CAPABILITIES = frozenset({(6, 1), (6, 2), (7, 0), (7, 2), (7, 5), (8, 0), (8, 6)})
#: The kernel reads int32: rows are widened a block at a time, so that no whole matrix is held in it.
BLOCK_BYTES = 64 * 2**20

_logger = logging.getLogger(__name__)


@functools.cache
def kernels() -> Any | None:
    """Import the package's matrix kernels, or return None and say why in the log. Tried once."""
    try:
        from cpm_kernels.kernels import gemm
    # Whatever a third party's import raises (ImportError, OSError, RuntimeError, …), torch can do the work.
    except Exception as error:
        _logger.info("cpm-kernels not usable (%s): torch expands quantised weights", type(error).__name__)
        return None
    return gemm


@functools.cache
def serves(device: torch.device) -> bool:
    """Say whether cpm-kernels runs on `device` and gets a small product right there.

    Imports it only if the GPU is one it was compiled for. Asked once a device.
    """
    if compute_capability(device) not in CAPABILITIES or kernels() is None:
        return False
    integers = torch.arange(-128, 128, dtype=torch.int8, device=device).view(8, 32)
    scale = torch.linspace(0.001, 0.1, 8, device=device).half()
    try:
        computed = expand_with_kernel(integers, scale)
    # A launch that fails (driver, context) must cost speed only, never the answer.
    except Exception as error:
        _logger.info("cpm-kernels failed on %s (%s): torch takes over", device, type(error).__name__)
        return False
    return bool(torch.allclose(computed, _expand_with_torch(integers, scale), rtol=2e-3))


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def expand(integers: Tensor, scale: Tensor) -> Tensor:
    """Return int8 [out, in] times scale [out] in float16: by cpm-kernels where it serves, else by torch."""
    if serves(integers.device):
        return expand_with_kernel(integers, scale)
    return _expand_with_torch(integers, scale)


def _expand_with_torch(integers: Tensor, scale: Tensor) -> Tensor:
    return integers.half() * scale.half().unsqueeze(-1)


def expand_with_kernel(integers: Tensor, scale: Tensor) -> Tensor:
    gemm = kernels()
    assert gemm is not None
    rows, columns = integers.shape
    expanded = torch.empty(rows, columns, dtype=torch.float16, device=integers.device)
    scale = scale.half().contiguous()
    block = max(1, BLOCK_BYTES // (4 * columns))
    with launch_stream(integers.device) as stream:
        for start in range(0, rows, block):
            wide = integers[start : start + block].int().contiguous()
            pointers = (wide.data_ptr(), scale[start:].data_ptr(), expanded[start:].data_ptr())
            gemm.gemm_scale_x(1, len(wide), columns, *pointers, stream)
    return expanded


@contextmanager
def launch_stream(device: torch.device) -> Iterator[int]:
    # The package launches on the current device, whatever device the pointers belong to.
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream
