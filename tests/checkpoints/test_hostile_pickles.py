"""Nothing of a pickle is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from checkpoint_files import RunsCommand, poison, replace_pickle, write_weights
from small_checkpoints import load_refused, load_small, small_weights

from medchat.errors import CheckpointError
from medchat.inference import shards

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("layout", ["bin", "sharded-bin"])
def test_a_malicious_pickle_executes_nothing(tmp_path: Path, layout: str) -> None:
    marker = tmp_path / "executed"
    file = write_weights(tmp_path, small_weights(), layout)[-1]
    poison(file, marker)
    error = load_refused(tmp_path)
    assert not marker.exists()
    assert "system" in error.what and "safetensors" in error.remedy and error.where == str(file)


def test_a_bare_pickle_as_weights_executes_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": RunsCommand(marker)}, protocol=2))
    load_refused(tmp_path)
    assert not marker.exists()


def test_torchs_own_reader_refuses_the_pickle_too(tmp_path: Path) -> None:
    """The second door holds without the first."""
    marker = tmp_path / "executed"
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    poison(file, marker)
    with pytest.raises(CheckpointError):
        shards.load_pickle(file)
    assert not marker.exists()


NAMES = [("builtins", "eval"), ("os", "system"), ("collections", "Counter"), ("torch", "load"),
         ("torch._utils", "_rebuild_wrapper_subclass"), ("torch.storage", "_load_from_bytes")]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_only_the_names_of_a_plain_state_dict_are_resolved(tmp_path: Path, module: str, name: str) -> None:
    (file,) = write_weights(tmp_path, small_weights(), "bin")
    replace_pickle(file, b"\x80\x02}q\x00X\x01\x00\x00\x00ac" + f"{module}\n{name}\n".encode() + b"s.")
    assert f"{module}.{name}" in load_refused(tmp_path).what


def test_an_older_torch_is_refused_for_pickles_and_fine_for_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    write_weights(tmp_path / "bin", small_weights(), "bin")
    write_weights(tmp_path / "safe", small_weights(), "safetensors")
    error = load_refused(tmp_path / "bin")
    assert "2.9.1" in error.what and "2.10" in error.remedy
    load_small(tmp_path / "safe")


def test_a_pickle_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": small_weights()}, tmp_path / "pytorch_model.bin")
    assert "epoch" in load_refused(tmp_path).what
