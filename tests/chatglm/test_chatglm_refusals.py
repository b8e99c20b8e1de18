"""Other models, impossible configurations and bad weights are refused as such."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chatglm_variants import config_of, load, tensors_of, variant
from checkpoint_files import poison
from medchat_chatglm.inspection import inspect_chatglm
from refusals import refused

from medchat.errors import MemoryShortageError

pytest_plugins = ("chatglm_variants",)
pytestmark = pytest.mark.torch

CHATGLM3 = {"model_type": "chatglm", "ffn_hidden_size": 13696, "kv_channels": 128, "rmsnorm": True,
            "multi_query_attention": True, "padded_vocab_size": 65024, "num_layers": 28}  # fmt: skip


def test_a_later_chatglm_is_refused_with_an_explanation(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(CHATGLM3))
    assert "ChatGLM3" in refused(lambda: load(folder)).what
    assert inspect_chatglm(folder) is None


def test_another_family_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model", model_type="llama")
    assert "llama" in refused(lambda: load(folder)).what
    assert inspect_chatglm(folder) is None


BAD_KEYS = {
    "position_encoding_2d": False,
    "hidden_size": "wide",
    "num_layers": 0,
    "num_attention_heads": 3,
    "vocab_size": 10**12,
    "inner_hidden_size": -4,
    "quantization_bit": 3,
    "layernorm_epsilon": "small",
    "bos_token_id": "sop",
    "eos_token_id": [],
    "tie_word_embeddings": "no",
    "medchat_position_rule": "v9",
    "pre_seq_len": -1,
}


@pytest.mark.parametrize("key", BAD_KEYS)
def test_an_impossible_configuration_is_refused_naming_the_key_and_the_file(
    tiny: Path, tmp_path: Path, key: str
) -> None:
    folder = variant(tiny, tmp_path / "model", **{key: BAD_KEYS[key]})
    error = refused(lambda: load(folder))
    assert key in error.what and error.where == str(folder / "config.json")


@pytest.mark.parametrize("key", ["num_layers", "vocab_size", "hidden_size", "inner_hidden_size"])
def test_a_configuration_of_another_size_is_refused(tiny: Path, tmp_path: Path, key: str) -> None:
    folder = variant(tiny, tmp_path / "model", **{key: 2 * config_of(tiny)[key]})
    refused(lambda: load(folder))


def test_a_configuration_cannot_choose_code(tiny: Path, tmp_path: Path) -> None:
    keys = {
        "auto_map": {"AutoModel": "evil--repo.Model"},
        "_attn_implementation": "someone/kernel",
        "attn_implementation": "someone/kernel",
        "trust_remote_code": True,
        "quantization_config": {"quant_method": "bitsandbytes"},
    }
    loaded = load(variant(tiny, tmp_path / "model", **keys))
    assert loaded.config._attn_implementation == "sdpa"
    assert not any(
        hasattr(loaded.config, key) for key in ("auto_map", "trust_remote_code", "quantization_config")
    )


def test_a_chat_checkpoint_that_lacks_its_files_is_refused(tiny: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "ice_text.model"):
        folder = variant(tiny, tmp_path / name)
        (folder / name).unlink()
        error = refused(lambda folder=folder: load(folder))  # type: ignore[misc]
        assert str(folder) in error.where


def test_nan_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    name = "transformer.layers.1.mlp.dense_4h_to_h.weight"
    weights[name][3, 1] = float("nan")
    for quantize in ("none", "int8", "int4"):
        folder = variant(tiny, tmp_path / quantize, weights, "sharded-bin")
        error = refused(lambda folder=folder, quantize=quantize: load(folder, quantize=quantize))  # type: ignore[misc]
        assert name in error.what and error.where.endswith(".bin")


def test_a_malicious_shard_executes_nothing_on_load_or_inspection(tiny: Path, tmp_path: Path) -> None:
    folder, marker = variant(tiny, tmp_path / "model", layout="sharded-bin"), tmp_path / "executed"
    poison(sorted(folder.glob("*.bin"))[1], marker)
    refused(lambda: load(folder))
    refused(lambda: inspect_chatglm(folder))
    assert not marker.exists()


def test_too_little_memory_is_said_before_reading(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medchat.inference.device.available_memory", lambda _: 1000)
    monkeypatch.setattr("medchat_chatglm.loading.assign", lambda *_: pytest.fail("read a weight"))
    refused(lambda: load(tiny), MemoryShortageError, 4)
