"""Quantised weights that were kept, as `medchat models list|clean|verify` treat them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import run

from medchat.api import QuantizedCache
from medchat.checkpoints.kept_quantized import keep


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Keep a file of 2,000 bytes as if it had been quantised, beside what a killed program left; return its folder."""
    folder = tmp_path / "medchat-home" / "cache" / "quantized"
    cache = QuantizedCache(folder, 1 << 20)
    (folder / ".killed.0").mkdir(parents=True)
    (folder / ".killed.0" / "model.safetensors").write_bytes(bytes(500))
    return keep(
        cache, "abc", 2000, lambda file: file.write_bytes(bytes(2000)) and None, Path("/models/m"), "int4"
    )


def test_kept_weights_are_listed_with_their_source_and_place(kept: Path) -> None:
    listed = run("models", "list").out
    assert "保存的量化权重" in listed
    assert "int4  /models/m" in listed
    assert str(kept) in listed
    last = json.loads(run("models", "list", "--json").out)[-1]
    assert (last["kind"], last["source"], last["path"]) == ("quantized", "/models/m", str(kept))
    assert last["size_bytes"] == sum(file.stat().st_size for file in kept.iterdir())


def test_clean_says_what_it_would_remove_and_then_removes_what_was_left_behind_too(kept: Path) -> None:
    assert "共 1 份" in run("models", "clean", "--dry-run").out
    assert kept.is_dir()
    assert "已清除 1 份" in run("models", "clean").out
    assert not list(kept.parent.iterdir())
    assert "已清除 0 份" in run("models", "clean").out


def test_clean_touches_nothing_but_the_cache(kept: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.safetensors").write_bytes(b"mine")
    (kept.parent / "link").symlink_to(outside)
    run("models", "clean")
    assert (outside / "model.safetensors").read_bytes() == b"mine"


def test_verify_finds_a_changed_byte_in_kept_weights(kept: Path) -> None:
    assert run("models", "verify", str(kept)).code == 0
    (kept / "model.safetensors").write_bytes(bytes(1999) + b"1")
    failed = run("models", "verify", str(kept))
    assert failed.code == 3
    assert "model.safetensors" in failed.err
