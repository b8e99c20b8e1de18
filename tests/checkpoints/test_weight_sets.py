"""Of several sets of weights in a folder the first complete one is used, and the user is told which."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_files import poison, write_weights
from safetensors.torch import save_file
from small_checkpoints import load_refused, load_small, small_weights

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.errors import CheckpointError
from medchat.language import set_language

pytestmark = pytest.mark.torch

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n"


def lone_index(folder: Path) -> None:
    table = {"weight_map": {"scale": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(table))


def index_over_pointers(folder: Path) -> None:
    for file in write_weights(folder, small_weights(1), "sharded-safetensors"):
        file.write_bytes(POINTER)


def cut(folder: Path) -> None:
    (file,) = write_weights(folder, small_weights(1), "safetensors")
    file.write_bytes(file.read_bytes()[:-9])


def one_shard_of_another_version(folder: Path) -> None:
    first, _ = write_weights(folder, small_weights(1), "sharded-safetensors")
    write_weights(folder / "other", {"stranger": torch.ones(2)}, "safetensors")
    first.write_bytes((folder / "other" / "model.safetensors").read_bytes())


def whole(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


INCOMPLETE: dict[str, Callable[[Path], object]] = {
    "pointer": whole(POINTER),
    "empty file": whole(b""),
    "web page": whole(b"<!DOCTYPE html><html></html>"),
    "no tensors": whole(struct.pack("<Q", 2) + b"{}"),
    "cut": cut,
    "folder": lambda folder: (folder / "model.safetensors").mkdir(),
    "pipe": lambda folder: os.mkfifo(folder / "model.safetensors"),
    "broken link": lambda folder: (folder / "model.safetensors").symlink_to("gone"),
    "index without shards": lone_index,
    "index over pointers": index_over_pointers,
    "index of another version": one_shard_of_another_version,
    "index that is no JSON": lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
}


@pytest.mark.parametrize("layout", ["bin", "sharded-bin"])
@pytest.mark.parametrize("kind", INCOMPLETE)
def test_an_incomplete_set_gives_way_to_the_complete_one(tmp_path: Path, kind: str, layout: str) -> None:
    INCOMPLETE[kind](tmp_path)
    weights = small_weights(2)
    files = write_weights(tmp_path, weights, layout)
    model = load_small(tmp_path)
    assert torch.equal(model.embed.weight, weights["embed.weight"].float())
    (note,) = open_checkpoint(tmp_path).notes
    index = f"{files[0].name}.index.json" if layout == "bin" else "pytorch_model.bin.index.json"
    assert (files[0].name if layout == "bin" else index) in note


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_without_another_set_the_fault_of_the_only_one_is_told(tmp_path: Path, kind: str) -> None:
    INCOMPLETE[kind](tmp_path)
    load_refused(tmp_path)


def test_of_two_incomplete_sets_the_preferred_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert load_refused(tmp_path).where.endswith("model.safetensors")


def test_the_preferred_of_two_complete_sets_is_used_without_a_word(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights(1), "safetensors")
    write_weights(tmp_path, small_weights(2), "bin")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "safetensors" and checkpoint.notes == ()


def test_the_note_is_said_in_both_languages(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    write_weights(tmp_path, small_weights(), "bin")
    chinese = open_checkpoint(tmp_path).notes
    set_language("en")
    try:
        english = open_checkpoint(tmp_path).notes
    finally:
        set_language("zh")
    assert "git-lfs 指针" in chinese[0] and "改用 pytorch_model.bin" in chinese[0]
    assert "using pytorch_model.bin instead" in english[0]


def test_an_index_that_leads_out_of_the_folder_is_never_passed_over(tmp_path: Path) -> None:
    write_weights(tmp_path, small_weights(), "bin")
    table = {"weight_map": {"scale": "../outside.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table))
    assert "outside" in load_refused(tmp_path).what


def test_a_hostile_pickle_that_is_passed_over_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (file,) = write_weights(tmp_path, small_weights(1), "bin")
    poison(file, marker)
    write_weights(tmp_path, small_weights(2), "sharded-bin")
    load_small(tmp_path)
    assert not marker.exists()


# ---------------------------------------------------------------- links


def linked(folder: Path, store: Path, *, relative: bool = False) -> Path:
    """Write a sharded checkpoint whose shards are links to files in `store`."""
    files = write_weights(folder, small_weights(3), "sharded-safetensors")
    store.mkdir(parents=True)
    for number, file in enumerate(files):
        target = store / f"{number}f00d"
        file.replace(target)
        file.symlink_to(os.path.relpath(target, file.parent) if relative else target)
    return folder


HUB = Path("hub/models--owner--name")


@pytest.mark.parametrize(
    ("folder", "store", "relative"),
    [
        ("my models/7B", HUB / "blobs", False),  # the program of the hub before 0.23, --local-dir
        (HUB / "snapshots/abc", HUB / "blobs", True),
        ("renamed/snapshots/abc", "renamed/blobs", True),
        ("elsewhere/snapshots/abc", HUB / "blobs", False),  # a snapshot moved out of the cache
    ],
)
def test_links_into_a_hub_cache_are_followed(
    tmp_path: Path, folder: str | Path, store: str | Path, relative: bool
) -> None:
    model = load_small(linked(tmp_path / folder, tmp_path / store, relative=relative))
    assert torch.equal(model.embed.weight, small_weights(3)["embed.weight"].float())


@pytest.mark.parametrize("store", ["other disk", "blobs", "models--a--b/other", "models--a--b/blobs/deeper"])
def test_any_other_link_out_is_called_a_link_with_the_way_on(tmp_path: Path, store: str) -> None:
    error = load_refused(linked(tmp_path / "model", tmp_path / store))
    assert "is a link" in error.what and str(tmp_path / store) in error.what
    assert "cp --remove-destination" in error.remedy and "tamper" not in error.remedy


def test_a_chain_of_links_counts_by_its_end(tmp_path: Path) -> None:
    folder = linked(tmp_path / "model", tmp_path / HUB / "blobs")
    secret = tmp_path / "secret"
    blob = next((tmp_path / HUB / "blobs").iterdir())
    blob.replace(secret)
    blob.symlink_to(secret)
    assert str(secret) in load_refused(folder).what


def test_a_link_into_a_cache_that_was_cleared_is_a_missing_shard(tmp_path: Path) -> None:
    folder = linked(tmp_path / "model", tmp_path / HUB / "blobs")
    for blob in (tmp_path / HUB / "blobs").iterdir():
        blob.unlink()
    assert "missing shard" in load_refused(folder).what


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    files = write_weights(tmp_path, small_weights(3), "sharded-bin")
    files[0].replace(tmp_path / "real.bin")
    files[0].symlink_to("real.bin")
    load_small(tmp_path)


@pytest.mark.parametrize("name", ["\ud800.safetensors", "x" * 300, "药" * 100])
def test_a_shard_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("model.bin", "pytorch_model.bin"),
        ("pytorch_model (1).bin", "pytorch_model.bin"),
        ("weights.safetensors", "model.safetensors"),
    ],
)
def test_a_file_under_another_name_is_to_be_given_the_name_of_its_format(
    tmp_path: Path, name: str, usual: str
) -> None:
    (tmp_path / name).write_bytes(b"\x80")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert name in caught.value.what and caught.value.remedy.endswith(usual)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("model.safetensors", "pytorch_model.bin"),
        ("adapter_model.safetensors", "adapter_model.bin"),
        ("prefix_encoder.safetensors", "prefix_encoder.bin"),
    ],
)
def test_a_pickle_named_as_safetensors_is_called_that_and_renamed_it_is_read(
    tmp_path: Path, name: str, renamed: str, layout: str
) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / name, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(CheckpointError, match="pickle") as caught:
        open_checkpoint(tmp_path, ((name, "safetensors"),))
    subprocess.run(caught.value.remedy, shell=True, check=True)
    assert list(read_headers(open_checkpoint(tmp_path, ((renamed, "bin"),)))) == ["weight"]


def test_safetensors_named_as_a_pickle_are_called_that_and_renamed_they_are_read(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors") as caught:
        open_checkpoint(tmp_path)
    subprocess.run(caught.value.remedy, shell=True, check=True)
    assert list(read_headers(open_checkpoint(tmp_path))) == ["weight"]


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480])
def test_no_length_of_a_header_makes_a_pickle_of_safetensors(tmp_path: Path, length: int) -> None:
    table = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).ljust(length)
    content = struct.pack("<Q", length) + table.encode() + bytes(8)
    assert content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04")), "the beginning of a pickle"
    (tmp_path / "model.safetensors").write_bytes(content)
    assert list(read_headers(open_checkpoint(tmp_path))) == ["weight"]


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030"])
def test_a_small_file_in_another_encoding_is_called_so(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["模型"]}', encoding=encoding)
    with pytest.raises(CheckpointError, match="不是 UTF-8 文本"):
        read_config(tmp_path)
