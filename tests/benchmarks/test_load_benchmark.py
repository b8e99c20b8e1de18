"""The full-size benchmarks: their checkpoints are cut like the published ones, and their bars hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from locations import ROOT
from medchat_chatglm.inspection import inspect_chatglm
from medchat_chatglm.loading import load_model
from medchat_llama.loading import LLAMA

from medchat.api import LoadOptions

BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts beside one another, no package

import full_size_checkpoint  # noqa: E402
import llama_7b_checkpoint  # noqa: E402
import loading_figures  # noqa: E402

pytestmark = pytest.mark.torch
GIB = 2**30

#: Published sizes of the eight shards, in bytes: the icetk-era files, then the later ones
#: (docs/specs/models.md, "ChatGLM-6B revisions and files").
MIDDLE = (1879731432, 1980385902, 1913294120, 1879722289, 1879731496, 1074103621)
PUBLISHED = {150528: (1904491802, *MIDDLE, 1233126123), 130528: (1740651802, *MIDDLE, 1069286123)}


@pytest.mark.parametrize("rows", PUBLISHED)
def test_the_shards_are_cut_and_sized_as_published(rows: int) -> None:
    shards = full_size_checkpoint.shards_of(full_size_checkpoint.Shape(rows=rows))
    assert sum(map(len, shards)) == 368
    payloads = [sum(tensor.byte_count for tensor in shard) for shard in shards]
    assert len(payloads) == len(PUBLISHED[rows])
    for payload, published in zip(payloads, PUBLISHED[rows], strict=True):
        assert 0 < published - payload < 32768  # the pickle and the zip's table, some hundred bytes a tensor


@pytest.mark.slow
@pytest.mark.parametrize("bits", [0, 8, 4])
@pytest.mark.parametrize("rows", PUBLISHED)
def test_a_small_checkpoint_of_the_writer_loads_strictly(tmp_path: Path, rows: int, bits: int) -> None:
    shape = full_size_checkpoint.Shape(rows=rows, hidden=8, inner=32, layers=2, heads=1, bits=bits)
    written = full_size_checkpoint.write_checkpoint(tmp_path, shape)
    card = inspect_chatglm(tmp_path)
    assert card is not None and card.weight_bytes == written
    loaded = load_model(LoadOptions(tmp_path, device="cpu", dtype="bfloat16"))
    assert loaded.notes == () and loaded.config.quantization_bit == bits
    assert loaded.tokenizer.id_of("<sop>") == loaded.config.bos_token_id


def test_the_llama_has_the_published_shards_and_parameters() -> None:
    shards = llama_7b_checkpoint.shards_of(llama_7b_checkpoint.Shape())
    assert len(shards) == 33
    tensors = [tensor for shard in shards for tensor in shard if "inv_freq" not in tensor.name]
    assert sum(tensor.byte_count for tensor in tensors) == 2 * 6_738_415_616


def test_a_small_llama_of_the_writer_loads_strictly_with_its_adapter(tmp_path: Path) -> None:
    shape = llama_7b_checkpoint.Shape(rows=400, hidden=16, inner=24, layers=2, heads=2)
    llama_7b_checkpoint.write_checkpoint(tmp_path / "base", shape)
    llama_7b_checkpoint.write_adapter(tmp_path / "adapter", shape)
    options = LoadOptions(tmp_path / "base", adapters=(tmp_path / "adapter",), device="cpu", dtype="bfloat16")
    loaded = LLAMA.load(options)
    assert loaded.tokenizer.size == loaded.model.config.vocab_size == 400


def test_each_missed_bar_is_reported() -> None:
    good = {"peak_over_weights": 1.05}
    answer = {"exit_code": 0, "completion_tokens": 4, "seconds_between_first_and_last": 1.0}
    assert loading_figures.missed(good, answer) == []
    for loading, asked in (
        ({"peak_over_weights": 1.11}, answer),
        (good, answer | {"exit_code": 3}),
        (good, answer | {"completion_tokens": None}),
        (good, answer | {"seconds_between_first_and_last": 0.0}),
    ):
        assert len(loading_figures.missed(loading, asked)) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("flags", "disk", "memory"),
    [
        ((), 15 * GIB, 15 * GIB),
        (("--quantized", "8", "--rows", "130528"), 8 * GIB, 10 * GIB),
        (("--quantized", "4", "--rows", "130528"), 5 * GIB, 8 * GIB),
    ],
    ids=["bfloat16", "int8", "int4"],
)
def test_a_full_size_checkpoint_loads_within_its_bar_and_streams(
    tmp_path: Path, flags: tuple[str, ...], disk: int, memory: int
) -> None:
    if shutil.disk_usage(tmp_path).free < disk or psutil.virtual_memory().available < memory:
        pytest.skip(f"needs {disk // GIB} GiB of disk and {memory // GIB} GiB of memory")
    report = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARKS / "load_full_size.py"), "--json", str(report)]
    command += ["--dir", str(tmp_path / "model"), "--tokens", "6", *flags]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["loading"]["peak_over_weights"] <= 1.10
    assert figures["ask"]["completion_tokens"] and not (tmp_path / "model").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_7b_llama_with_an_adapter_loads_within_its_bar_and_streams(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 15 * GIB or psutil.virtual_memory().available < 16 * GIB:
        pytest.skip("needs 15 GiB of disk and 16 GiB of memory")
    report = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARKS / "load_7b_llama.py"), "--json", str(report)]
    command += ["--dir", str(tmp_path / "model"), "--tokens", "6"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["loading"]["peak_over_weights"] <= 1.10
    assert figures["checkpoint"]["shards"] == 33 and not (tmp_path / "model").exists()
