"""Records longer than the positions that weights have are refused before training, with the place of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from byte_nets import LENGTH, AttendingBackbone
from sft_watcher import Watcher
from transformers import AutoModelForCausalLM

from medchat.api import Example, SFTData, SFTOptions
from medchat.errors import DataError
from medchat.hf import TransformersBackbone

pytestmark = pytest.mark.torch

POSITIONS = 64
#: Architectures that look positions up, in an embedding or a computed table, and others; with keys of their own.
LIMITED: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {},
    "opt": {"word_embed_proj_dim": 64, "ffn_dim": 64},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
}
UNLIMITED: Mapping[str, Mapping[str, Any]] = {"qwen2": {}, "gpt_neox": {}}
LONG = SFTData(
    [Example("短", "好", where="data.json:1"), Example("头痛", "多喝水" * 30, where="data.json:2")],
    [Example("发烧", "多休息" * 30, where="data.json:3")],
)


def backbone(model_type: str) -> TransformersBackbone:
    stated = {"name": "positions", "summary": {"zh": "", "en": ""}, "model_types": (model_type,)}
    kind: type[TransformersBackbone] = type("Kind", (TransformersBackbone,), stated)
    return kind()


def options(folder: Path, **changes: Any) -> SFTOptions:
    plain = SFTOptions(model=folder, output=folder.parent / "out", device="cpu", max_length=512)
    return replace(plain, method="full", batch_size=2, micro_batch_size=2, **changes)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("positions") / "gpt2"
    backbone("gpt2").tiny(folder, max_position_embeddings=POSITIONS)
    return folder


@pytest.mark.parametrize("model_type", [*LIMITED, *UNLIMITED])
def test_what_the_model_cannot_read_is_refused_and_nothing_else(model_type: str, tmp_path: Path) -> None:
    kind = backbone(model_type)
    kind.tiny(tmp_path / "base", max_position_embeddings=POSITIONS, **{**LIMITED, **UNLIMITED}[model_type])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    ids = torch.ones(1, POSITIONS + 1, dtype=torch.long)
    recipe = kind.recipes["full"]
    if model_type in UNLIMITED:
        model(ids)
        survey = recipe.survey(LONG, options(tmp_path / "base"))
        assert survey is not None and survey.longest > POSITIONS
        return
    model(ids[:, 1:])
    with pytest.raises((IndexError, RuntimeError)):
        model(ids)
    with pytest.raises(DataError) as refused:
        recipe.survey(LONG, options(tmp_path / "base"))
    assert f"只有 {POSITIONS} 个位置" in refused.value.what
    assert "data.json:2, data.json:3" in refused.value.what and "data.json:1," not in refused.value.what
    assert f"--max-length {POSITIONS}" in refused.value.remedy


def test_a_run_that_nobody_surveyed_is_refused_before_it_writes_anything(gpt2: Path) -> None:
    chosen = options(gpt2)
    with pytest.raises(DataError, match=r"data\.json:2"):
        backbone("gpt2").recipes["full"].run(LONG, chosen, Watcher())
    assert not chosen.output.exists()


@pytest.mark.slow
def test_what_the_refusal_advises_trains(gpt2: Path, tmp_path: Path) -> None:
    chosen = options(gpt2, num_epochs=1, samples=0, precision="float32")
    report = (
        backbone("gpt2")
        .recipes["full"]
        .run(LONG, replace(chosen, max_length=POSITIONS, output=tmp_path / "out"), Watcher())
    )
    assert report.steps == 1


def test_a_prefix_takes_positions_of_the_records(gpt2: Path) -> None:
    chosen = replace(options(gpt2, max_length=60, pre_seq_len=16), method="ptuning")
    with pytest.raises(DataError) as refused:
        backbone("gpt2").recipes["ptuning"].survey(LONG, chosen)
    assert f"--max-length {POSITIONS - 16}" in refused.value.remedy
    for prefix in (POSITIONS - 4, POSITIONS, 2 * POSITIONS):
        with pytest.raises(DataError, match=f"只有 {max(0, POSITIONS - prefix)} 个位置") as refused:
            backbone("gpt2").recipes["ptuning"].survey(LONG, replace(chosen, pre_seq_len=prefix))
        assert "--pre-seq-len" in refused.value.remedy and "--max-length" not in refused.value.remedy
    assert backbone("gpt2").recipes["ptuning"].survey(LONG, replace(chosen, max_length=POSITIONS - 16))


def test_rotary_positions_have_no_end_beside_a_prefix_and_with_a_vocabulary_of_their_number(
    tmp_path: Path,
) -> None:
    kind, rows = backbone("qwen2"), 300
    kind.tiny(tmp_path / "base", vocabulary_size=rows, max_position_embeddings=rows)
    assert kind.inspect(tmp_path / "base").vocab_size == rows  # type: ignore[union-attr]
    data = SFTData([Example("头痛", "多喝水" * rows, where="data.json:1")])
    chosen = options(tmp_path / "base", max_length=2 * rows)
    assert kind.recipes["full"].survey(data, chosen).longest > rows  # type: ignore[union-attr]
    beside = replace(chosen, method="ptuning", pre_seq_len=16, max_length=rows - 8)
    assert kind.recipes["ptuning"].survey(data, beside).longest > rows - 16  # type: ignore[union-attr]


def test_a_net_has_the_context_that_its_config_states(tmp_path: Path) -> None:
    AttendingBackbone().tiny(tmp_path / "base")
    recipe = AttendingBackbone().recipes["full"]
    data = SFTData([Example("头痛", "水" * LENGTH, where="data.json:7")])
    with pytest.raises(DataError, match=r"data\.json:7"):
        recipe.survey(data, options(tmp_path / "base"))
    assert recipe.survey(data, options(tmp_path / "base", max_length=LENGTH))
