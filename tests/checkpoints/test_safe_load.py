"""Every layout of a checkpoint gives the stored values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import LAYOUTS, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from locations import ROOT
from small_checkpoints import load_small, small_weights

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.inference.shards import read_tensors

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_stored_values_in_the_compute_dtype(
    tmp_path: Path, layout: str, dtype: torch.dtype
) -> None:
    weights = small_weights()
    write_weights(tmp_path, weights, layout)
    model = load_small(tmp_path, dtype)
    assert model.head.weight is model.embed.weight
    assert model.count.tolist() == [4, 5, 6]
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, weights[name].to(dtype)), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_headers_say_what_torch_would_say_without_reading_a_weight(tmp_path: Path, layout: str) -> None:
    weights = small_weights()
    write_weights(tmp_path, weights, layout)
    found = read_headers(open_checkpoint(tmp_path))
    assert {name: (header.shape, header.dtype) for name, header in found.items()} == {
        name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in weights.items()
    }
    assert sum(header.byte_count for header in found.values()) == sum(w.nbytes for w in weights.values())


def test_headers_are_read_without_torch(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights(), "sharded-bin")
    program = (
        "import sys, pathlib\n"
        "from medchat.checkpoints.headers import read_headers\n"
        "from medchat.checkpoints.layout import open_checkpoint\n"
        "print(len(read_headers(open_checkpoint(pathlib.Path(sys.argv[1])))), 'torch' in sys.modules)"
    )
    root = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.split() == ["5", "False"]


dtypes = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64, torch.bool]
)


shapes = st.lists(st.integers(0, 5), max_size=3)


@settings(max_examples=40)
@given(
    table=st.dictionaries(st.text("abc._0", min_size=1, max_size=12), st.tuples(shapes, dtypes), min_size=1),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_table_of_tensors_is_listed_and_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, tuple[list[int], torch.dtype]],
    layout: str,
) -> None:
    folder = tmp_path_factory.mktemp("table")
    drawn = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randint(-9, 9, shape, generator=drawn).to(dtype) for name, (shape, dtype) in table.items()
    }
    if len(weights) == 1:
        layout = layout.removeprefix("sharded-")
    write_weights(folder, weights, layout)
    checkpoint = open_checkpoint(folder)
    assert {n: h.shape for n, h in read_headers(checkpoint).items()} == {
        n: tuple(w.shape) for n, w in weights.items()
    }
    read = {
        stored.name: torch.cat([piece.clone() for _, piece in stored.pieces(16)] or [stored.values])
        for stored in read_tensors(checkpoint, lambda _: True)
    }
    assert read.keys() == weights.keys()
    for name, tensor in weights.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].reshape(tensor.shape), tensor)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_pages_of_a_used_piece_are_given_back(tmp_path: Path, layout: str) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux counts mapped pages in resident memory this way")
    write_weights(tmp_path, {"big": torch.ones(96, 2**18)}, layout)  # 96 MiB
    checkpoint = open_checkpoint(tmp_path)
    (stored,) = read_tensors(checkpoint, lambda _: True)
    torch.ones(8, 2**18).sum(dtype=torch.float64)  # the library's own pages are in now
    before, peak, total = _resident(), 0, 0.0
    for _, piece in stored.pieces(8 * 2**20):
        total += float(piece.sum(dtype=torch.float64))
        peak = max(peak, _resident())
    assert total == 96 * 2**18
    assert peak - before < 32 * 2**20
    # Given back is not lost: a second look finds the same values.
    assert float(stored.values.sum(dtype=torch.float64)) == total


def _resident() -> int:
    """Return the resident bytes of this process that belong to files."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split("RssFile:")[1].split()[0])
