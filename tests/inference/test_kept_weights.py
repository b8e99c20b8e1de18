"""Weights that are quantised while loading are kept, and the next start maps them: the answers are the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_process import TORCH, child_environment, start_python
from llama_checkpoints import lora
from native_engine import COMPILED
from talking_miniatures import FAMILIES, WEIGHTS

from medchat.api import GenerationConfig, LoadOptions, QuantizedCache, Text
from medchat.checkpoints.kept_quantized import all_kept
from medchat.checkpoints.manifest import verify_manifest
from medchat.errors import MedchatError
from medchat.inference.engine import NativeLinear

pytest_plugins = ("talking_miniatures",)
pytestmark = [pytest.mark.torch, COMPILED]

GREEDY = GenerationConfig(max_new_tokens=12, greedy=True)
GENEROUS = 1 << 30
Options = Callable[..., LoadOptions]


@pytest.fixture
def options(talkative: Callable[[str], Path], tmp_path: Path) -> Options:
    """Return a function from a family to options that quantise its miniature and keep that in `tmp_path`/cache."""

    def made(family: str = "llama", most: int = GENEROUS, **others: Any) -> LoadOptions:
        cache = QuantizedCache(tmp_path / "cache", most)
        how = {"quantize": "int4", "device": "cpu", "dtype": "bfloat16", "engine": "native", **others}
        return LoadOptions(talkative(family), quantized_cache=cache, **how)

    return made


def load(options: LoadOptions, family: str = "llama") -> Any:
    return FAMILIES[family].load(options)


def answer(chat: Any) -> str:
    return "".join(delta.text for delta in chat.stream([Text("头痛怎么办？")], GREEDY, threading.Event()))


def kept_file(tmp_path: Path) -> Path:
    (kept,) = all_kept(tmp_path / "cache")
    return kept.folder / "model.safetensors"


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_weights_answer_as_those_quantised_while_loading(family: str, options: Options) -> None:
    chosen = options(family, quantize="int8" if family == "bloom" else "int4")
    plain = load(replace(chosen, quantized_cache=None), family)
    first, second = load(chosen, family), load(chosen, family)
    assert answer(plain) == answer(first) == answer(second)
    assert second.describe()["quantization"] == chosen.quantize
    assert "models clean" in " ".join(first.describe()["notes"])
    assert "models clean" not in " ".join(second.describe()["notes"])


def test_the_next_start_maps_the_file_and_copies_no_packed_weight(options: Options, tmp_path: Path) -> None:
    load(options())
    written = kept_file(tmp_path).stat().st_mtime_ns
    chat = load(options())
    layer = next(module for module in chat.model.modules() if isinstance(module, NativeLinear))
    assert kept_file(tmp_path).stat().st_mtime_ns == written
    spans = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        if line.endswith(str(kept_file(tmp_path)))
    ]
    assert any(low <= layer.packed.data.ctypes.data < high for low, high in spans)


def test_an_adapter_over_kept_weights_answers_as_over_fresh_ones(options: Options, tmp_path: Path) -> None:
    chosen = options()
    load(chosen)
    lora(
        load(replace(chosen, quantize="none", engine="auto", quantized_cache=None)).model,
        tmp_path / "lora",
        1,
    )
    adapted = replace(chosen, adapters=(tmp_path / "lora",))
    assert answer(load(adapted)) == answer(load(replace(adapted, quantized_cache=None)))


def test_other_weights_in_the_same_folder_are_quantised_anew(options: Options, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(options().model, model)
    before = answer(load(replace(options(), model=model)))
    raw = bytearray((model / WEIGHTS).read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 60000] = raw[middle + 60000 : middle + 120000]
    (model / WEIGHTS).write_bytes(raw)
    changed = load(replace(options(), model=model))
    assert len(all_kept(tmp_path / "cache")) == 2
    assert answer(changed) != before


@pytest.mark.parametrize("damage", ["shorter", "longer", "another header", "gone"])
def test_a_kept_file_that_is_not_what_was_written_is_written_again(
    damage: str, options: Options, tmp_path: Path
) -> None:
    expected = answer(load(options()))
    file = kept_file(tmp_path)
    whole = file.read_bytes()
    file.unlink()
    if damage != "gone":
        cut = {
            "shorter": whole[:-7],
            "longer": whole + b"0",
            "another header": whole.replace(b"U8", b"I8", 1),
        }
        file.write_bytes(cut[damage])
    assert answer(load(options())) == expected
    assert kept_file(tmp_path).read_bytes() == whole


def test_what_is_kept_is_private_and_its_checksum_is_recorded(options: Options, tmp_path: Path) -> None:
    os.umask(0)
    try:
        load(options())
    finally:
        os.umask(0o022)
    folder = kept_file(tmp_path).parent
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder)] == [0o700, 0o700]
    assert verify_manifest(folder)["quantization"] == "int4"
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["source"] == str(
        options().model
    )
    raw = bytearray(kept_file(tmp_path).read_bytes())
    raw[-5] ^= 1
    kept_file(tmp_path).write_bytes(raw)
    with pytest.raises(MedchatError):
        verify_manifest(folder)


def test_the_longest_unused_goes_where_the_limit_is_reached(options: Options, tmp_path: Path) -> None:
    load(options("llama"))
    size = all_kept(tmp_path / "cache")[0].size
    load(options("bloom", most=GENEROUS), "bloom")
    load(options("llama"))  # used again: now bloom is the longest unused
    load(options("llama", quantize="int8", most=2 * size + size // 2))
    kept = all_kept(tmp_path / "cache")
    assert sorted((Path(one.source).name, one.quantization) for one in kept) == [
        ("llama", "int4"),
        ("llama", "int8"),
    ]


def test_more_than_the_limit_is_not_kept_and_the_user_reads_why(options: Options, tmp_path: Path) -> None:
    chat = load(options(most=1000))
    assert "quantized_cache" in " ".join(chat.describe()["notes"])
    assert not (tmp_path / "cache").exists()
    assert answer(chat) == answer(load(replace(options(), quantized_cache=None)))


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_next_start(
    options: Options, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder", encoding="utf-8")
    chat = load(options())
    assert "没有保存" in " ".join(chat.describe()["notes"])
    assert answer(chat) == answer(load(replace(options(), quantized_cache=None)))


def test_stopped_while_quantising_nothing_is_left(options: Options, tmp_path: Path) -> None:
    def stop(read: int, total: int) -> None:
        assert 0 < read <= total
        if read > total // 2:
            raise MedchatError("stopped")

    with pytest.raises(MedchatError, match="stopped"):
        load(replace(options(), watch=stop))
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_nothing_is_kept_where_torch_computes(engine: str, options: Options, tmp_path: Path) -> None:
    load(options(engine=engine, dtype="float32"))
    assert not (tmp_path / "cache").exists()


SHORTENED = """
import os, sys, threading
from pathlib import Path
from medchat_llama.backbone import LlamaBackbone
from medchat.api import GenerationConfig, LoadOptions, QuantizedCache, Text
from medchat.checkpoints.kept_quantized import all_kept

cache = QuantizedCache(Path(sys.argv[2]), 1 << 30)
chat = LlamaBackbone().load(LoadOptions(Path(sys.argv[1]), quantize="int8", engine="native", dtype="bfloat16",
                                        device="cpu", quantized_cache=cache))
import torch
torch.set_num_threads(int(sys.argv[3]))
os.truncate(all_kept(cache.folder)[0].folder / "model.safetensors", 1000)
list(chat.stream([Text("头痛")], GenerationConfig(max_new_tokens=2, greedy=True), threading.Event()))
print("went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the pages of a shortened file")
def test_a_file_shortened_while_it_is_mapped_ends_the_program_with_a_sentence(
    options: Options, tmp_path: Path
) -> None:
    child = start_python(
        *("-c", SHORTENED, str(options().model), str(tmp_path / "cache"), "3"),
        environment=child_environment(),
        imported=TORCH,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, error = child.communicate(timeout=60)
    assert (child.returncode, out) == (3, "")
    assert "被截短" in error
    assert "models clean" in error
    assert "Traceback" not in error
