"""A vocabulary belongs to its own generation of weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from chatglm_variants import config_of, load, variant
from goldens import golden_folders
from locations import SHARED
from refusals import refused

pytest_plugins = ("chatglm_variants",)
pytestmark = pytest.mark.torch


def test_the_vocabulary_of_the_other_generation_is_refused_both_ways(
    tiny: Path, tiny_v0: Path, tmp_path: Path
) -> None:
    for number, (weights, vocabulary) in enumerate([(tiny, tiny_v0), (tiny_v0, tiny)]):
        for config_of_tokenizer in (weights, vocabulary):
            folder = variant(weights, tmp_path / f"{number}{config_of_tokenizer.name}")
            shutil.copy(vocabulary / "ice_text.model", folder)
            shutil.copy(config_of_tokenizer / "tokenizer_config.json", folder)
            error = refused(lambda folder=folder: load(folder))  # type: ignore[misc]
            assert str(folder / "ice_text.model") in error.what
            assert str(folder / "config.json") in error.what and "ice_text.model" in error.remedy


@pytest.mark.golden
@pytest.mark.parametrize("vocabulary", ["chatglm-6b", "chatglm-6b-icetk"])
@pytest.mark.parametrize("with_tokenizer_config", [True, False])
def test_the_published_vocabularies_pair_with_their_own_weights_only(
    tmp_path: Path, vocabulary: str, with_tokenizer_config: bool
) -> None:
    source = SHARED / "tokenizers" / vocabulary
    if not source.is_dir():
        pytest.skip("the published vocabularies are not here")
    checked = 0
    for golden in golden_folders():
        rows = config_of(golden)["vocab_size"]
        if rows not in (130528, 150528):
            continue
        checked += 1
        folder = tmp_path / golden.name
        shutil.copytree(golden, folder)
        shutil.copy(source / "ice_text.model", folder)
        own = (rows == 150528) == vocabulary.endswith("icetk")
        # The small file that lay beside the weights stays when someone swaps the large one.
        beside = "chatglm-6b-icetk" if rows == 150528 else "chatglm-6b"
        if with_tokenizer_config:
            shutil.copy(SHARED / "tokenizers" / beside / "tokenizer_config.json", folder)
        if own:
            assert load(folder).tokenizer.id_of("[gMASK]") == rows - 527
        else:
            error = refused(lambda folder=folder: load(folder))  # type: ignore[misc]
            assert str(folder / "ice_text.model") in error.what and str(folder / "config.json") in error.what
    if not checked:
        pytest.skip("no recorded checkpoint has a published number of rows")


def test_ids_that_the_configuration_leaves_to_the_class_are_checked_too(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model", bos_token_id=None, mask_token_id=None, gmask_token_id=None)
    assert "ice_text.model" in refused(lambda: load(folder)).what


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 100, b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_corrupt_vocabulary_is_refused(tiny: Path, tmp_path: Path, content: bytes) -> None:
    folder = variant(tiny, tmp_path / "model")
    (folder / "ice_text.model").write_bytes(content)
    assert str(folder / "ice_text.model") in refused(lambda: load(folder)).where
