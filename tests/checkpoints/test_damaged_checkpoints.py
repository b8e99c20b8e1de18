"""Damage to a checkpoint is named, with its file."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import torch
from checkpoint_files import LAYOUTS, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import load_refused, load_small, small_weights

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.errors import CheckpointError

pytestmark = pytest.mark.torch


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = load_refused(tmp_path / "absent")
    assert error.where.endswith("absent") and "no such" in error.what


def test_a_file_given_as_folder_is_answered_with_its_folder(tmp_path: Path) -> None:
    (file,) = write_weights(tmp_path, small_weights(), "safetensors")
    assert f"--model {tmp_path}" in load_refused(file).remedy


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    assert "no weights" in load_refused(tmp_path).what


def test_shards_without_their_index_are_pointed_out(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights(), "sharded-bin")
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    assert "no index" in load_refused(tmp_path).what


TEXTS = {
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "html": b"  <!DOCTYPE html><html><body>404</body></html>",
    "text": "这不是权重文件。\n".encode() * 40,
    "ascii": b"Entry not found",
    "empty": b"",
}


SAID = {"lfs": "git-lfs", "html": "web page", "text": "text", "ascii": "text", "empty": "empty"}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_in_the_place_of_weights_is_called_what_it_is(tmp_path: Path, layout: str, kind: str) -> None:
    file = write_weights(tmp_path, small_weights(), layout)[-1]
    file.write_bytes(TEXTS[kind])
    error = load_refused(tmp_path)
    assert error.where == str(file) and SAID[kind] in error.what
    if kind == "lfs":
        assert f"git -C {tmp_path} lfs pull" in error.remedy


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_file_is_named(tmp_path: Path, layout: str, share: float) -> None:
    weights = small_weights() | {"norm.bias": torch.zeros(4), "embed.weight": torch.ones(7, 4)}
    file = write_weights(tmp_path, weights, layout)[-1]
    whole = file.read_bytes()
    file.write_bytes(whole[: max(9, int(len(whole) * share))])
    assert load_refused(tmp_path).where == str(file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_cut_of_a_file_goes_unnoticed(tmp_path: Path, layout: str) -> None:
    file = write_weights(tmp_path, small_weights(), layout)[-1]
    whole = file.read_bytes()
    for length in (len(whole) - 1, *random.Random(3).sample(range(len(whole)), 25)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):  # already by the headers: inspection sees it too
            read_headers(open_checkpoint(tmp_path))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 6), layout=st.sampled_from(LAYOUTS))
def test_garbled_bytes_never_escape_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int, layout: str
) -> None:
    folder = tmp_path_factory.mktemp("garbled")
    file = write_weights(folder, small_weights(), layout)[-1]
    content = bytearray(file.read_bytes())
    # Not drawn from the strategy: a file need not be equally long each time it is written.
    luck = random.Random(seed)
    for _ in range(changes):
        content[luck.randrange(len(content))] = luck.randrange(256)
    file.write_bytes(content)
    try:  # a changed weight may pass; anything else is one clear error
        load_small(folder)
    except CheckpointError as error:
        assert error.where


@pytest.mark.parametrize("layout", ["sharded-safetensors", "sharded-bin"])
def test_a_missing_shard_is_named(tmp_path: Path, layout: str) -> None:
    file = write_weights(tmp_path, small_weights(), layout)[1]
    file.unlink()
    assert file.name in load_refused(tmp_path).what


BAD_NAMES = ["../outside.bin", "/etc/passwd", "sub/shard.bin", "..", ".", "", "a\\b.bin", "C:x.bin", "a\0b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_shard_name_with_a_path_in_it_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    write_weights(folder, small_weights(), "sharded-bin")
    index = folder / "pytorch_model.bin.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["scale"] = name
    index.write_text(json.dumps(table))
    assert load_refused(folder).where == str(index)


@settings(max_examples=60)
@given(name=st.text(min_size=1, max_size=20))
def test_whatever_the_index_says_no_shard_lies_outside(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}), encoding="utf-8")
    with pytest.raises(CheckpointError):
        checkpoint = open_checkpoint(folder)
        assert all(file.parent == folder for file in checkpoint.files)
        raise CheckpointError("stayed inside")


def test_a_shard_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "model"
    real = write_weights(outside, small_weights(), "sharded-safetensors")[1]
    write_weights(folder, small_weights(), "sharded-safetensors")
    link = folder / real.name
    link.unlink()
    link.symlink_to(real)
    assert "outside" in load_refused(folder).what


def test_the_links_of_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "models--a--b/blobs", tmp_path / "models--a--b/snapshots/1f2e"
    files = write_weights(folder, small_weights(), "sharded-safetensors")
    blobs.mkdir()
    for number, file in enumerate(files):
        blob = blobs / f"{number:064x}"
        file.rename(blob)
        file.symlink_to(Path("../../blobs") / blob.name)
    assert load_small(folder).count.tolist() == [4, 5, 6]


@pytest.mark.parametrize("layout", ["sharded-safetensors", "sharded-bin"])
def test_an_index_naming_what_its_shard_lacks_is_refused(tmp_path: Path, layout: str) -> None:
    write_weights(tmp_path, small_weights(), layout)
    index = next(tmp_path.glob("*.index.json"))
    table = json.loads(index.read_text())
    table["weight_map"]["ghost.weight"] = table["weight_map"]["scale"]
    index.write_text(json.dumps(table))
    error = load_refused(tmp_path)
    assert "ghost.weight" in error.what and error.where == str(index)


@pytest.mark.parametrize("layout", ["sharded-safetensors", "sharded-bin"])
def test_a_tensor_in_two_shards_is_refused(tmp_path: Path, layout: str) -> None:
    weights = small_weights()
    first, second = write_weights(tmp_path, weights, layout)
    spare = write_weights(tmp_path / "spare", weights, layout.removeprefix("sharded-"))[0]
    spare.replace(second)
    error = load_refused(tmp_path)
    assert first.name in error.what and second.name in error.what


def test_a_tensor_named_twice_in_a_safetensors_header_is_refused(tmp_path: Path) -> None:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "twice" in load_refused(tmp_path).what


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 99999, "\xff"]
)
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text.encode("latin-1"))
    assert load_refused(tmp_path).where.startswith(str(index))


def test_a_broken_config_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n  "hidden_size": 4,\n  "num_layers": \n}', encoding="utf-8")
    with pytest.raises(CheckpointError) as info:
        read_config(tmp_path)
    assert info.value.where == f"{tmp_path / 'config.json'}:4"
