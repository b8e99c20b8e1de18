"""A number in a file is bounded before anything is computed or allocated with it."""

from __future__ import annotations

import io
import json
import pickle
import resource
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from checkpoint_files import replace_pickle, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_bloom.backbone import BloomBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from small_checkpoints import small_weights

from medchat.api import Backbone, LoadOptions
from medchat.checkpoints.adapter_folder import open_adapter
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.json_object import CONFIG_BYTES, read_json_object
from medchat.checkpoints.layout import open_checkpoint
from medchat.errors import CheckpointError

# Time and memory are measured, and tracing for coverage takes of both.
pytestmark = [pytest.mark.torch, pytest.mark.no_cover]

SECONDS, BYTES = 3.0, 200 * 2**20


@contextmanager
def within_bounds() -> Iterator[None]:
    """Fail if what runs inside takes longer, or more memory, than any file of a few megabytes may."""
    before, most = time.process_time(), largest()
    yield
    assert time.process_time() - before < SECONDS
    assert largest() - most < BYTES


def largest() -> int:
    """Return the most memory that this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def refused(folder: Path) -> str:
    """Read the folder's headers, which must be refused with a short message; return it."""
    with within_bounds(), pytest.raises(CheckpointError) as info:
        read_headers(open_checkpoint(folder))
    assert len(info.value.what) < 400
    return info.value.what


# ---------------------------------------------------------------- safetensors


def entry(shape: str = "[1]", dtype: str = "F32", offsets: str = "[0,4]") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def many_keys(count: int) -> str:
    """Return an object of so many keys, the first of which comes once more at the end."""
    return "{" + "".join(f'"{number}":0,' for number in range(count)) + '"0":0}'


TABLES: dict[str, Callable[[], str]] = {
    "a million axes": lambda: f'{{"a":{entry("[" + "1," * 999_999 + "1]")}}}',
    "a million large axes": lambda: f'{{"a":{entry("[" + "999983," * 500_000 + "1]")}}}',
    "65 axes": lambda: f'{{"a":{entry("[" + "1," * 64 + "1]")}}}',
    "an axis of thousands of digits": lambda: f'{{"a":{entry("[" + "9" * 4000 + "]")}}}',
    "a number that Python refuses": lambda: f'{{"a":{entry("[" + "9" * 100_000 + "]")}}}',
    "values beyond any file": lambda: f'{{"a":{entry("[1099511627776,1099511627776]")}}}',
    "a duplicate at the end": lambda: many_keys(300_000),
    "deep lists": lambda: "[" * 200_000 + "]" * 200_000,
    "deep objects": lambda: '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a name of megabytes": lambda: f'{{"{"x" * 3_000_000}":{entry("[2]")}}}',
    "a header as long as the old limit": lambda: " " * 50_000_000 + "{}",
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_no_header_of_safetensors_takes_time_or_memory_beyond_its_size(tmp_path: Path, kind: str) -> None:
    table = TABLES[kind]().encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(table)) + table + bytes(4))
    del table
    refused(tmp_path)


def test_a_header_length_beyond_the_file_reserves_nothing(tmp_path: Path) -> None:
    for length in (2**62, 2**31, CONFIG_BYTES + 1):
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        refused(tmp_path)


# ---------------------------------------------------------------- pickles


def nested_key(levels: int) -> bytes:
    """Return a pickle whose key is a tuple of tuples: hashing it takes 2 ** levels steps."""
    return b"\x80\x02}N" + b"\x86".join([b"q\x00h\x00"] * levels) + b"\x86Ns."


PICKLES: dict[str, Callable[[], bytes]] = {
    "a memo of gigabytes": lambda: b"\x80\x02}r" + struct.pack("<I", 2**28) + b".",
    "a memo of terabytes": lambda: b"\x80\x02}r\xff\xff\xff\x7f.",
    "a key that hashes for ever": lambda: nested_key(200),
    "lists without end": lambda: b"\x80\x02}(" + b"]" * 400_000 + b".",
    "four million marks": lambda: b"\x80\x02" + b"(" * 4_000_000 + b".",
    "a text of gigabytes": lambda: b"\x80\x02}X\xff\xff\xff\xff" + b"a" * 100 + b".",
    "a number of gigabytes": lambda: b"\x80\x02}\x8b\xff\xff\xff\x7f" + b"\x01" * 100 + b".",
    "decimal digits": lambda: b"\x80\x02}L" + b"9" * 1_000_000 + b"L\n.",
    "a line without end": lambda: b"\x80\x02}c" + b"a" * 3_000_000,
    "popped beyond the bottom": lambda: b"\x80\x02R.",
    "a frame of terabytes": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("kind", PICKLES)
def test_no_pickle_takes_time_or_memory_beyond_its_size(tmp_path: Path, kind: str, layout: str) -> None:
    payload = PICKLES[kind]()
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    if layout == "zip":
        replace_pickle(file, payload)
    else:
        magic = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"a": 1})]
        file.write_bytes(b"".join(magic) + payload)
    refused(tmp_path)


def torch_pickle(size: str, stride: str = "(I1\ntq\x01") -> bytes:
    """Return the pickle of {"a": tensor} with that code for its size, in the instructions that torch uses."""
    head = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    return (
        head
        + b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00"
        + size.encode("latin-1")
        + stride.encode("latin-1")
        + b"\x89}tRs."
    )


@pytest.mark.parametrize("axes", [65, 100_000])
def test_a_tensor_of_a_pickle_has_few_axes(tmp_path: Path, axes: int) -> None:
    (file,) = write_weights(tmp_path, {"a": torch.ones(1)}, "bin")
    ones = "(" + "K\x01" * axes + "t"
    replace_pickle(file, torch_pickle(ones, ones))
    refused(tmp_path)


def test_a_table_of_many_keys_with_one_twice_is_refused_at_once(tmp_path: Path) -> None:
    keys = b"".join(b"X\x06\x00\x00\x00%06dN" % number for number in [*range(50_000), 7])
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    replace_pickle(file, b"\x80\x02}(" + keys + b"u.")
    assert "twice" in refused(tmp_path)


def test_a_deflated_record_is_refused_before_it_grows(tmp_path: Path) -> None:
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    with zipfile.ZipFile(file) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records:
            archive.writestr(name, bytes(2_000_000) if name.endswith("data.pkl") else content)
    assert file.stat().st_size < 10_000
    assert "zip" in refused(tmp_path)


def test_an_archive_whose_list_of_records_is_huge_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"a/data/{number:0250d}", b"")
    (tmp_path / "pytorch_model.bin").write_bytes(content.getvalue())
    del content
    refused(tmp_path)


# ---------------------------------------------------------------- small JSON files

OBJECTS: dict[str, Callable[[], str]] = {
    "a duplicate at the end": lambda: many_keys(250_000),
    "nested beyond showing": lambda: '{"a":' + "[" * 900 + "]" * 900 + "}",
    "nested beyond parsing": lambda: '{"a":' + "[" * 200_000,
    "larger than the limit": lambda: '{"a":"%s"}' % ("x" * CONFIG_BYTES),
    "a number of a million digits": lambda: '{"a":%s}' % ("9" * 1_000_000),
    "half a surrogate pair": lambda: '{"\\ud800":1,"\\ud800":2}',
}  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_small_json_file_costs_no_more_than_its_size(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(OBJECTS[kind]())
    with within_bounds(), pytest.raises(CheckpointError) as info:
        read_json_object(file)
    assert len(info.value.what) < 300 and info.value.where.startswith(str(file))


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone for backbone in (LlamaBackbone(), BloomBackbone(), ChatGLMBackbone())
}
SIZES = {
    "llama": ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
              "max_sequence_length"],
    "bloom": ["hidden_size", "n_layer", "n_head", "vocab_size", "seq_length"],
    "chatglm": ["hidden_size", "inner_hidden_size", "num_layers", "num_attention_heads", "vocab_size",
                "max_sequence_length", "pre_seq_len"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) / "base" for name in BACKBONES}
    for name, backbone in BACKBONES.items():
        backbone.tiny(made[name], vocabulary_size=400)
    return made


@pytest.mark.parametrize(("family", "key"), [(name, key) for name, keys in SIZES.items() for key in keys])
def test_a_size_beyond_any_model_is_refused_by_its_key_before_anything_is_built(
    folders: dict[str, Path], tmp_path: Path, family: str, key: str
) -> None:
    shutil.copytree(folders[family], tmp_path, dirs_exist_ok=True)
    stated = json.loads((folders[family] / "config.json").read_text())
    for value in (2**30, 2**40, int("9" * 4000), -1, True, "64"):
        (tmp_path / "config.json").write_text(json.dumps({**stated, key: value}))
        for action in (BACKBONES[family].check, lambda options: BACKBONES[family].inspect(options.model)):
            if (
                key in ("pre_seq_len", "num_attention_heads", "inner_hidden_size")
                and action != BACKBONES[family].check
            ):
                continue
            with pytest.raises(CheckpointError) as info:
                action(LoadOptions(tmp_path))
            assert key in info.value.what and len(info.value.what) < 300


def test_an_expression_in_blooms_tokenizer_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["bloom"], tmp_path, dirs_exist_ok=True)
    table = json.loads((folders["bloom"] / "tokenizer.json").read_text())
    table["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+$"
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="正则"):
        BACKBONES["bloom"].check(LoadOptions(tmp_path))


# ---------------------------------------------------------------- anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CONFIG_KEYS = ["peft_type", "r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "bias", "size",
               "modules_to_save", "layers_to_transform", "layers_pattern", "exclude_modules", "use_rslora"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000)
@given(
    stated=st.dictionaries(
        st.sampled_from(CONFIG_KEYS), json_values | st.sampled_from(["LORA", 4]), max_size=8
    )
)
def test_whatever_an_adapter_states_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, stated: dict[str, object]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-adapter"
    if not folder.exists():
        folder.mkdir()
        torch.save(
            {"a.q.lora_A.weight": torch.ones(4, 2), "a.q.lora_B.weight": torch.ones(2, 4)},
            folder / "adapter_model.bin",
        )
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    try:
        open_adapter(folder)
    except CheckpointError as error:
        assert error.what and error.where


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000)
@given(family=st.sampled_from(sorted(SIZES)), data=st.data())
def test_whatever_a_config_states_is_described_or_refused(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"fuzzed-{family}"
    if not folder.exists():
        shutil.copytree(folders[family], folder)
    stated = json.loads((folders[family] / "config.json").read_text())
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(stated)), json_values, min_size=1, max_size=3))
    (folder / "config.json").write_text(json.dumps({**stated, **changed}))
    try:
        BACKBONES[family].inspect(folder)
    except CheckpointError as error:
        assert error.what and error.where


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000)
@given(layout=st.sampled_from(["safetensors", "bin", "legacy-bin"]), data=st.data())
def test_whatever_bytes_a_weight_file_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, layout: str, data: st.DataObject
) -> None:
    base = tmp_path_factory.getbasetemp() / f"fuzzed-{layout}"
    if not base.exists():
        write_weights(base / "sound", small_weights(), layout)
        write_weights(base / "changed", small_weights(), layout)
    (file,) = (base / "sound").iterdir()
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    (base / "changed" / file.name).write_bytes(content)
    try:
        read_headers(open_checkpoint(base / "changed"))
    except CheckpointError as error:
        assert error.what and error.where
