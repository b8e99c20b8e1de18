"""Bloom in every published layout, its adapters, and what is refused before a weight is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bloom_adapters import write_adapter
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_bloom.huozi.loading import HUOZI_LOADING
from medchat_bloom.loading import BLOOM
from medchat_bloom.tiny import write_tiny_bloom
from native_engine import EITHER_ENGINE, round_head, rounded
from transformers import BloomForCausalLM

from medchat.api import LoadOptions
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.inference.write_checkpoint import LAYOUTS

pytestmark = pytest.mark.torch

LINEARS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
IDS = torch.tensor([[5, 60, 200, 7, 90, 33]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bloom") / "base"
    write_tiny_bloom(folder, n_layer=2)
    return folder


def options(folder: Path, *adapters: Path, **changes: Any) -> LoadOptions:
    return LoadOptions(folder, adapters=adapters, **{"device": "cpu", "dtype": "float32", **changes})


def logits(folder: Path, *adapters: Path, **changes: Any) -> torch.Tensor:
    with torch.inference_mode():
        return BLOOM.load(options(folder, *adapters, **changes)).model(IDS).logits


def edited(base: Path, folder: Path, **changes: Any) -> Path:
    """Return a copy of `base` whose config.json has `changes` (None removes a key)."""
    shutil.copytree(base, folder)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_loads_as_the_library_reads_it(
    tmp_path: Path, layout: str, prefix: str
) -> None:
    folder = tmp_path / "model"
    write_tiny_bloom(folder, layout=layout, prefix=prefix, hidden_size=32, vocabulary_size=300)
    with torch.inference_mode():
        expected = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits
    assert torch.equal(logits(folder), expected)


def test_the_output_head_is_the_embedding_itself(base: Path) -> None:
    model = BLOOM.load(options(base)).model
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


def test_weights_take_the_dtype_asked_for(base: Path) -> None:
    loaded = BLOOM.load(options(base, dtype="bfloat16"))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": None, "n_embed": 64},
        {"n_head": None, "num_attention_heads": 4},
        {"n_layer": None, "num_hidden_layers": 2},
        {"seq_length": None, "torch_dtype": None, "pad_token_id": None},
        {"attn_implementation": "somebody/kernel", "auto_map": {"AutoModel": "code.Model"}},
    ],
    ids=["n_embed", "heads", "layers", "bare", "code"],
)
def test_keys_of_other_years_mean_the_same(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert torch.equal(logits(edited(base, tmp_path / "edited", **changes)), logits(base))


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("safetensors", [False, True])
def test_an_adapter_is_added_to_the_fused_matrix_as_a_whole(
    base: Path, tmp_path: Path, safetensors: bool
) -> None:
    adapter = write_adapter(tmp_path / "lora", safetensors=safetensors, enable_lora=None, merge_weights=False)
    model = BLOOM.load(options(base)).model
    before = logits(base)
    for layer, block in enumerate(model.transformer.h):
        name = f"base_model.model.transformer.h.{layer}.self_attention.query_key_value"
        if safetensors:
            from safetensors.torch import load_file

            tensors = load_file(adapter / "adapter_model.safetensors")
        else:
            tensors = torch.load(adapter / "adapter_model.bin", weights_only=True)
        delta = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        block.self_attention.query_key_value.weight.data += 16 / 4 * delta
    with torch.inference_mode():
        merged = model(IDS).logits
    after = logits(base, adapter)
    assert torch.allclose(after, merged, atol=1e-3)
    assert not torch.allclose(after, before, atol=1e-1)


def test_two_adapters_act_together(base: Path, tmp_path: Path) -> None:
    one, two = (write_adapter(tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2)))
    both = logits(base, one, two)
    assert not torch.allclose(both, logits(base, one), atol=1e-2)
    assert torch.allclose(both, logits(base, two, one), atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 32},
        {"layers": 3},
        {"layers": 1},
        {"scale": 0.0},
        {"target_modules": ["q_proj", "v_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"fan_in_fan_out": True},
    ],
    ids=["narrower", "deeper", "shallower", "zero", "llama", "saved", "transposed"],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "lora", **changes)
    with pytest.raises(CheckpointError) as refusal:
        BLOOM.load(options(base, adapter))
    assert refusal.value.exit_code == 3
    assert str(adapter) in refusal.value.where
    assert refusal.value.remedy


def test_an_adapter_of_another_base_is_refused_by_its_name(tmp_path: Path) -> None:
    huozi = tmp_path / "huozi"
    HuoziBackbone().tiny(huozi)
    adapter = write_adapter(tmp_path / "lora-bloom-med-bloom", layers=30, width=4096, rank=8)
    with pytest.raises(CheckpointError, match="Bloom-7B"):
        HUOZI_LOADING.load(options(huozi, adapter))


def test_the_user_is_told_that_the_base_cannot_be_known(base: Path, tmp_path: Path) -> None:
    backbone = BloomBackbone()
    adapter = write_adapter(tmp_path / "lora")
    notes = " ".join(backbone.load(options(base, adapter)).describe()["notes"])
    assert "bloomz-7b1" in notes and "bloom-7b1" in notes
    assert not backbone.load(options(base)).describe()["notes"]
    card = backbone.inspect(base)
    assert card is not None and any("bloomz-7b1" in note for note in card.notes)


def test_the_template_follows_the_adapter(base: Path, tmp_path: Path) -> None:
    backbone = BloomBackbone()
    adapter = write_adapter(tmp_path / "lora")
    ours = write_adapter(tmp_path / "ours", medchat_template="med_template")
    odd = write_adapter(tmp_path / "odd", medchat_template="nobody_has_this")
    assert backbone.template(options(base)).name == "bare"
    assert backbone.template(options(base, adapter)).name == "bloom_deploy"
    assert backbone.template(options(base, adapter, ours)).name == "med_template"
    assert backbone.template(options(base, odd)).name == "bloom_deploy"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, ["llama"]),
        ({"vocab_size": 128}, ["vocab_size"]),
        ({"n_layer": 3}, ["n_layer 3"]),
        ({"n_layer": 10**9}, ["n_layer"]),
        ({"hidden_size": 128}, ["hidden_size"]),
        ({"n_head": 5}, ["n_head 5"]),
        ({"n_head": 0}, ["n_head"]),
        ({"n_head": "4"}, ["n_head"]),
        ({"hidden_size": None}, ["hidden_size"]),
        ({"layer_norm_epsilon": 0}, ["layer_norm_epsilon"]),
        ({"eos_token_id": "2"}, ["eos_token_id"]),
        ({"seq_length": -1}, ["seq_length"]),
    ],
    ids=lambda value: next(iter(value.items()), "") if isinstance(value, dict) else "",
)
def test_a_config_of_another_model_is_refused_before_anything_is_built(
    base: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    folder = edited(base, tmp_path / "edited", **changes)
    with pytest.raises(CheckpointError) as refusal:
        BLOOM.load(options(folder))
    assert all(word in refusal.value.what for word in words)
    assert refusal.value.where == str(folder / "config.json")


def test_a_vocabulary_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    write_tiny_bloom(small, vocabulary_size=300, hidden_size=16)
    write_tiny_bloom(large, vocabulary_size=700, hidden_size=16)
    (small / "tokenizer.json").write_bytes((large / "tokenizer.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        BLOOM.load(options(small))
    card = BloomBackbone().inspect(small)
    assert card is not None and any("无法对话" in note for note in card.notes)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_are_not_all_the_models_are_refused(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "model"
    write_tiny_bloom(folder, layout="bin", hidden_size=16, vocabulary_size=300)
    file = folder / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    name = "transformer.h.1.mlp.dense_h_to_4h.bias"
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        name = "transformer.h.1.mlp.gate.weight"
        tensors[name] = torch.zeros(2)
    else:
        tensors[name] = torch.zeros(5)
    torch.save(tensors, file)
    with pytest.raises(CheckpointError) as refusal:
        BLOOM.load(options(folder))
    assert name in refusal.value.what


@pytest.mark.parametrize(("quantize", "bits"), [("int8", 8), ("int4", 4)])
@EITHER_ENGINE
def test_quantising_on_the_way_in_gives_the_logits_of_weights_rounded_by_hand(
    base: Path, quantize: str, bits: int, engine: str
) -> None:
    dense = BLOOM.load(options(base)).model
    with torch.no_grad():
        for name, linear in dense.named_modules():
            if name.endswith(LINEARS) and isinstance(linear, torch.nn.Linear):
                linear.weight.copy_(rounded(linear.weight.half(), bits, engine))
        round_head(dense, bits, engine)
        expected = dense(IDS).logits
    assert not torch.allclose(expected, logits(base), atol=1e-6, rtol=0)
    found, allowed = logits(base, quantize=quantize, engine=engine), {"torch": 1e-5, "native": 1e-4}[engine]
    torch.testing.assert_close(found, expected, atol=allowed, rtol=allowed)


def test_an_unknown_width_is_refused(base: Path) -> None:
    with pytest.raises(UsageError, match="int3"):
        BLOOM.load(options(base, quantize="int3"))


# ---------------------------------------------------------------- what a folder is


def test_a_card_counts_a_stored_tied_head_once(tmp_path: Path) -> None:
    cards = []
    for prefix in ("", "transformer."):
        folder = tmp_path / f"with{prefix}"
        write_tiny_bloom(folder, prefix=prefix, vocabulary_size=300, hidden_size=16)
        cards.append(BloomBackbone().inspect(folder))
    with_head, without = cards[1], cards[0]
    assert with_head is not None and without is not None
    model = BLOOM.load(options(tmp_path / "with")).model
    assert with_head.parameters == without.parameters == model.num_parameters()
    assert with_head.weight_bytes > without.weight_bytes
    assert (with_head.backbone, with_head.template, with_head.layers) == ("bloom", "bare", 2)


@pytest.mark.parametrize("stated", [{"model_type": "llama"}, None])
def test_another_model_is_not_ours(tmp_path: Path, stated: dict[str, Any] | None) -> None:
    if stated is not None:
        (tmp_path / "config.json").write_text(json.dumps(stated))
    assert BloomBackbone().inspect(tmp_path) is None


def test_a_miniature_is_never_written_over_something_nor_in_an_impossible_shape(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(MedchatError, match="不会覆盖"):
        BloomBackbone().tiny(tmp_path)
    for shape in ({"hidden_size": 30}, {"n_layer": 0}, {"vocabulary_size": 100}):
        with pytest.raises(UsageError, match="尺寸"):
            BloomBackbone().tiny(tmp_path / "new", **shape)
    assert not (tmp_path / "new").exists()


def test_the_same_arguments_write_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tiny_bloom(
            tmp_path / name, layout="safetensors", corpus=["头痛怎么办？"], seed=3, hidden_size=16
        )
    files = [
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")
    ]
    assert files[0] == files[1]
