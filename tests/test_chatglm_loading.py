"""Loading ChatGLM checkpoints: published layouts, variants of fine-tuned files, prefixes, vocabularies, refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import LAYOUTS, poison, write_weights
from golden_sets import golden_folders, model_of
from medchat_chatglm.configuration import ChatGLMConfig, PositionRule
from medchat_chatglm.inspection import inspect
from medchat_chatglm.loading import LoadedModel, load_model, load_weights, read_configuration
from medchat_chatglm.quantised import QUANTISED_NAMES
from medchat_chatglm.tiny import write_tiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from medchat.api import LoadOptions
from medchat.errors import CheckpointError, MedchatError, MemoryShortageError, UsageError
from medchat.language import LANGUAGES, set_language
from medchat.torchside.packing import quantise_rows

pytestmark = pytest.mark.torch
SHARED = Path(os.environ.get("MEDCHAT_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
EMBEDDING, HEAD = "transformer.word_embeddings.weight", "lm_head.weight"
Weights = dict[str, Tensor]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the current generation, never written to."""
    folder = tmp_path_factory.mktemp("tiny") / "v11"
    write_tiny(folder, layout="safetensors", hidden_size=32, inner_hidden_size=64, num_attention_heads=2)
    return folder


@pytest.fixture(scope="session")
def tiny_v0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the icetk era, with image ids and without mask ids in its configuration."""
    folder = tmp_path_factory.mktemp("tiny") / "v0"
    write_tiny(
        folder,
        generation="v0",
        layout="safetensors",
        hidden_size=16,
        inner_hidden_size=32,
        num_attention_heads=1,
    )
    return folder


def tensors_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def config_of(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return table


def variant(
    source: Path, target: Path, weights: Weights | None = None, layout: str = "safetensors", **config: Any
) -> Path:
    """Copy a miniature with other weights, another layout or other keys (None removes one)."""
    target.mkdir()
    for file in ("ice_text.model", "tokenizer_config.json"):
        shutil.copy(source / file, target)
    table = config_of(source) | config
    table = {key: value for key, value in table.items() if value is not None}
    (target / "config.json").write_text(json.dumps(table), encoding="utf-8")
    write_weights(target, tensors_of(source) if weights is None else weights, layout)
    return target


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(LoadOptions(folder, **({"device": "cpu", "dtype": "float32"} | options)))


def logits(model: torch.nn.Module, config: ChatGLMConfig) -> Tensor:
    ids = torch.tensor([[*range(6, 14), config.gmask_token_id, config.bos_token_id]])
    with torch.inference_mode():
        result: Tensor = model(ids, use_cache=False).logits
    return result


def refused(
    load_it: Callable[[], object], code: int = 3, kind: type[MedchatError] = CheckpointError
) -> MedchatError:
    """Run what must be refused, in both languages, with a message of two lines; return the English error."""
    errors = []
    for language in LANGUAGES:
        set_language(language)
        try:
            with pytest.raises(kind) as info:
                load_it()
        finally:
            set_language("zh")
        error = info.value
        assert error.exit_code == code and error.what and error.remedy
        assert "\n" not in error.what + error.remedy + error.where
        errors.append(error)
    assert errors[0].what != errors[1].what
    return errors[1]


# ---------------------------------------------------------------- recorded checkpoints


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_a_recorded_checkpoint_gives_the_logits_of_a_direct_load(folder: Path) -> None:
    for rule in PositionRule:
        loaded = load_weights(LoadOptions(folder, device="cpu", dtype="float32", extra={"rule": str(rule)}))
        direct = model_of(folder, rule, torch.float32)
        assert loaded.config.rule == rule
        assert torch.equal(logits(loaded.model, loaded.config), logits(direct, loaded.config))


@pytest.mark.golden
@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_a_recorded_checkpoint_is_described_as_it_loads(folder: Path) -> None:
    card = inspect(folder)
    assert card is not None
    model = load_weights(LoadOptions(folder, device="cpu", dtype="float32")).model
    held = sum(
        parameter.numel() * (2 if parameter.dtype == torch.int8 and model.config.quantization_bit == 4 else 1)
        for name, parameter in model.named_parameters()
        if "prefix_encoder" not in name and not name.endswith("weight_scale")
    )
    assert card.parameters == held
    assert (card.vocab_size, card.layers, card.hidden_size) == (
        model.config.vocab_size,
        model.config.num_layers,
        model.config.hidden_size,
    )
    bits = model.config.quantization_bit
    assert card.quantization == (f"int{bits}" if bits else "none")


# ---------------------------------------------------------------- layouts and variants


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_to_the_same_logits(tiny: Path, tmp_path: Path, layout: str) -> None:
    expected = load(tiny)
    loaded = load(variant(tiny, tmp_path / "model", layout=layout))
    assert torch.equal(logits(loaded.model, loaded.config), logits(expected.model, expected.config))
    assert loaded.tokenizer.encode("你好") == expected.tokenizer.encode("你好")
    assert not loaded.model.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_fine_tuned_files_of_one_dtype_without_tables_and_head_load(
    tiny: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    weights = {
        name: tensor.to(dtype)
        for name, tensor in tensors_of(tiny).items()
        if name != HEAD and not name.endswith("inv_freq")
    }
    expected, loaded = load(tiny), load(variant(tiny, tmp_path / "model", weights, "sharded-bin"))
    assert torch.equal(logits(loaded.model, loaded.config), logits(expected.model, expected.config))
    assert loaded.notes == ()


def test_broken_tables_are_never_read(tiny: Path, tmp_path: Path) -> None:
    weights = {
        name: torch.full_like(tensor, float("nan")) if name.endswith("inv_freq") else tensor
        for name, tensor in tensors_of(tiny).items()
    }
    loaded = load(variant(tiny, tmp_path / "model", weights))
    assert logits(loaded.model, loaded.config).isfinite().all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_norms_in_float32_and_ties_the_head(tiny: Path, dtype: str) -> None:
    loaded = load(tiny, dtype=dtype)
    model = loaded.model
    assert loaded.dtype == getattr(torch, dtype) == model.dtype
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if "layernorm" in name else loaded.dtype), name
    assert logits(model, loaded.config).isfinite().all()


def test_a_head_that_differs_is_used_only_when_untied_and_told_otherwise(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    weights[HEAD] = -weights[HEAD]
    tied = load(variant(tiny, tmp_path / "tied", weights))
    untied = load(variant(tiny, tmp_path / "untied", weights, tie_word_embeddings=False))
    assert len(tied.notes) == 1 and "tie_word_embeddings" in tied.notes[0]
    assert untied.notes == ()
    assert torch.allclose(logits(tied.model, tied.config), -logits(untied.model, untied.config))


@pytest.mark.parametrize("row", [0, 5, -1])
def test_nan_in_a_head_that_is_stored_but_tied_is_refused_too(tiny: Path, tmp_path: Path, row: int) -> None:
    weights = tensors_of(tiny)
    weights[HEAD] = weights[HEAD].clone()
    weights[HEAD][row, 1] = float("nan")
    with pytest.raises(CheckpointError) as refused:
        load(variant(tiny, tmp_path / "model", weights))
    assert refused.value.exit_code == 3 and HEAD in refused.value.what and "NaN" in refused.value.what


def test_a_head_that_differs_in_one_value_is_told(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    weights[HEAD] = weights[HEAD].clone()
    weights[HEAD][7, 1] += 1
    assert len(load(variant(tiny, tmp_path / "model", weights)).notes) == 1


def test_an_untied_head_is_required(tiny: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny)
    del weights[HEAD]
    folder = variant(tiny, tmp_path / "model", weights, tie_word_embeddings=False)
    assert HEAD in refused(lambda: load(folder)).what


def test_an_old_configuration_without_mask_ids_gets_those_of_its_generation(tiny_v0: Path) -> None:
    assert "mask_token_id" not in config_of(tiny_v0)
    loaded = load(tiny_v0)
    assert loaded.config.gmask_token_id == loaded.tokenizer.id_of("[gMASK]")
    assert loaded.config.rule == PositionRule.MED


@pytest.mark.parametrize("rule", list(PositionRule))
def test_the_rule_option_goes_before_the_configuration(
    tiny: Path, tmp_path: Path, rule: PositionRule
) -> None:
    folder = variant(tiny, tmp_path / "model", medchat_position_rule="upstream_v0")
    assert read_configuration(folder).rule == PositionRule.UPSTREAM_V0
    assert read_configuration(folder, {"rule": str(rule)}).rule == rule


def test_an_unknown_rule_is_wrong_usage(tiny: Path) -> None:
    error = refused(lambda: load(tiny, extra={"rule": "v2"}), 2, UsageError)
    assert "med_demo" in error.remedy


# ---------------------------------------------------------------- quantisation


@pytest.mark.parametrize("bits", [8, 4])
def test_quantising_while_loading_gives_the_bytes_of_the_published_form(tiny: Path, bits: int) -> None:
    model = load(tiny, quantize=f"int{bits}").model
    seen = 0
    for name, stored in tensors_of(tiny).items():
        if name.endswith(".weight") and name.split(".")[-2] in QUANTISED_NAMES:
            packed, scale = quantise_rows(stored, bits)
            assert torch.equal(model.get_parameter(name), packed)
            assert torch.equal(model.get_parameter(f"{name}_scale"), scale)
            seen += 1
    assert seen == 4 * model.config.num_layers and model.config.quantization_bit == bits


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_quantised_checkpoint_loads_as_it_was_written(
    tiny: Path, tmp_path: Path, bits: int, layout: str
) -> None:
    made = load(tiny, quantize=f"int{bits}")
    weights = {name: p.detach() for name, p in made.model.state_dict().items() if name != HEAD}
    folder = variant(tiny, tmp_path / "model", weights, layout, quantization_bit=bits)
    for quantize in ("none", f"int{bits}"):
        loaded = load(folder, quantize=quantize)
        assert torch.equal(logits(loaded.model, loaded.config), logits(made.model, made.config))
    other = {8: "int4", 4: "int8"}[bits]
    assert other in refused(lambda: load(folder, quantize=other), 2, UsageError).what


@pytest.mark.parametrize("with_head", [True, False])
def test_a_checkpoint_with_quantised_embeddings_uses_them_as_its_head(
    tiny: Path, tmp_path: Path, with_head: bool
) -> None:
    made = load(tiny, quantize="int4")
    weights = {name: p.detach() for name, p in made.model.state_dict().items() if name != HEAD}
    packed, scale = quantise_rows(tensors_of(tiny)[EMBEDDING], 4)
    weights |= {EMBEDDING: packed, f"{EMBEDDING}_scale": scale}
    if with_head:
        weights |= {HEAD: packed.clone(), f"{HEAD}_scale": scale.clone()}
    folder = variant(tiny, tmp_path / "qe", weights, quantization_bit=4, quantization_embeddings=True)
    model = load(folder).model
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    expected = logits(made.model, made.config)
    found = logits(model, made.config)
    assert torch.nn.functional.cosine_similarity(expected.flatten(), found.flatten(), dim=0) > 0.97
    # float32 after packing the embedding alone: the rest is the same model
    assert not torch.equal(expected, found)


def test_quantised_weights_without_the_key_are_told_by_their_kind(tiny: Path, tmp_path: Path) -> None:
    weights = {
        name: p.detach() for name, p in load(tiny, quantize="int8").model.state_dict().items() if name != HEAD
    }
    folder = variant(tiny, tmp_path / "model", weights)
    assert "int8" in refused(lambda: load(folder)).what


# ---------------------------------------------------------------- adapters


def prefix_weights(folder: Path, length: int, projection: bool) -> Weights:
    config = config_of(folder)
    width, total = config["hidden_size"], 2 * config["num_layers"] * config["hidden_size"]
    drawn = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=drawn)

    prefix = "transformer.prefix_encoder."
    if not projection:
        return {f"{prefix}embedding.weight": draw(length, total)}
    return {
        f"{prefix}embedding.weight": draw(length, width),
        f"{prefix}trans.0.weight": draw(width, width),
        f"{prefix}trans.0.bias": draw(width),
        f"{prefix}trans.2.weight": draw(total, width),
        f"{prefix}trans.2.bias": draw(total),
    }


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("layout", ["bin", "sharded-safetensors"])
def test_a_ptuning_folder_is_an_adapter_and_equals_the_model_that_holds_it(
    tiny: Path, tmp_path: Path, projection: bool, layout: str
) -> None:
    prefix = prefix_weights(tiny, 3, projection)
    # Older P-tuning checkpoints hold the whole model, which is then not read.
    extra = {} if layout == "bin" else {EMBEDDING: torch.full((2, 2), float("nan"))}
    write_weights(tmp_path / "adapter", prefix | extra, layout)
    keys = {"pre_seq_len": 3, "prefix_projection": projection}
    whole = load(variant(tiny, tmp_path / "whole", tensors_of(tiny) | prefix, **keys))
    beside = variant(tiny, tmp_path / "beside", **keys)
    save_file(prefix, beside / "prefix_encoder.safetensors")
    expected = logits(whole.model, whole.config)
    assert not torch.equal(expected, logits(load(tiny).model, whole.config))
    for loaded in (load(tiny, adapters=(tmp_path / "adapter",)), load(beside)):
        assert loaded.config.pre_seq_len == 3
        assert torch.equal(logits(loaded.model, loaded.config), expected)
    quantised = load(tiny, adapters=(tmp_path / "adapter",), quantize="int8", dtype="bfloat16")
    assert quantised.model.transformer.prefix_encoder.embedding.weight.dtype == torch.float32


def test_a_prefix_given_as_adapter_goes_before_the_models_own(tiny: Path, tmp_path: Path) -> None:
    own = {name: value + 1 for name, value in prefix_weights(tiny, 2, False).items()}
    whole = variant(tiny, tmp_path / "whole", tensors_of(tiny) | own, pre_seq_len=2)
    write_weights(tmp_path / "adapter", prefix_weights(tiny, 3, False), "bin")
    expected = load(tiny, adapters=(tmp_path / "adapter",))
    loaded = load(whole, adapters=(tmp_path / "adapter",))
    assert torch.equal(logits(loaded.model, loaded.config), logits(expected.model, expected.config))


def test_a_prefix_of_another_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    wrong = {"transformer.prefix_encoder.embedding.weight": torch.zeros(3, 100)}
    write_weights(tmp_path / "adapter", wrong, "bin")
    assert "3x100" in refused(lambda: load(tiny, adapters=(tmp_path / "adapter",))).what


def test_a_model_that_asks_for_a_prefix_it_lacks_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model", pre_seq_len=4)
    assert "--adapter" in refused(lambda: load(folder)).remedy


def test_a_prefix_given_as_model_is_pointed_to_the_adapter_flag(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model", prefix_weights(tiny, 4, False), "bin", pre_seq_len=4)
    assert "--adapter" in refused(lambda: load(folder)).remedy
    card = inspect(folder)
    assert card is not None and any("--adapter" in note for note in card.notes)


@pytest.mark.parametrize("make", ["missing", "empty", "model"])
def test_what_is_no_adapter_is_refused(tiny: Path, tmp_path: Path, make: str) -> None:
    folder = {"missing": tmp_path / "none", "empty": tmp_path, "model": tiny}[make]
    error = refused(lambda: load(tiny, adapters=(folder,)))
    assert error.where == str(folder) and "--" in error.remedy


def lora(model: torch.nn.Module, folder: Path) -> None:
    """Save a LoRA with random weights, as peft does."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["query_key_value"])
    torch.manual_seed(0)
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(folder)
    adapted.unload()


def test_a_lora_of_peft_gives_the_logits_that_peft_gives(tiny: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    lora(load(tiny).model, tmp_path / "lora")
    loaded = load(tiny, adapters=(tmp_path / "lora",))
    expected = PeftModel.from_pretrained(load(tiny).model, tmp_path / "lora").eval()
    assert torch.equal(logits(loaded.model, loaded.config), logits(expected, loaded.config))
    assert not torch.equal(logits(loaded.model, loaded.config), logits(load(tiny).model, loaded.config))


def test_a_lora_with_missing_unexpected_or_idle_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    lora(load(tiny).model, folder)
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    first = next(iter(weights))

    def refusal(changed: Weights) -> str:
        save_file(changed, file)
        return refused(lambda: load(tiny, adapters=(folder,))).what

    assert "missing" in refusal({name: value for name, value in weights.items() if name != first})
    assert "unexpected" in refusal(weights | {"base_model.model.ghost.lora_A.weight": torch.zeros(1)})
    assert "no logit" in refusal({n: torch.zeros_like(v) if "lora_B" in n else v for n, v in weights.items()})
    assert "no logit" in refusal({n: v * 1e-30 if "lora_B" in n else v for n, v in weights.items()})
    assert "NaN" in refusal(weights | {first: torch.full_like(weights[first], float("nan"))})


NO_PLAIN_LORA: list[dict[str, Any]] = [
    {"peft_type": "IA3"},
    {"use_dora": True},
    {"modules_to_save": ["lm_head"]},
    {"r": "x"},
    {"target_modules": ["q_proj"]},
]


@pytest.mark.parametrize("change", NO_PLAIN_LORA, ids=lambda change: next(iter(change)))
def test_an_adapter_that_is_no_plain_lora_of_this_model_is_refused(
    tiny: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = tmp_path / "lora"
    lora(load(tiny).model, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(lambda: load(tiny, adapters=(folder,)))


# ---------------------------------------------------------------- other models and bad configurations


CHATGLM3 = {"model_type": "chatglm", "ffn_hidden_size": 13696, "kv_channels": 128, "rmsnorm": True,
            "multi_query_attention": True, "padded_vocab_size": 65024, "num_layers": 28}  # fmt: skip


def test_a_later_chatglm_is_refused_with_an_explanation(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(CHATGLM3))
    assert "ChatGLM3" in refused(lambda: load(folder)).what
    assert inspect(folder) is None


def test_another_family_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model", model_type="llama")
    assert "llama" in refused(lambda: load(folder)).what
    assert inspect(folder) is None


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
    refused(lambda: inspect(folder))
    assert not marker.exists()


def test_too_little_memory_is_said_before_reading(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medchat.torchside.device.available_memory", lambda _: 1000)
    monkeypatch.setattr("medchat_chatglm.loading.assign", lambda *_: pytest.fail("read a weight"))
    refused(lambda: load(tiny), 4, MemoryShortageError)


# ---------------------------------------------------------------- vocabularies


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


# ---------------------------------------------------------------- inspection


def test_inspection_imports_no_torch_and_says_what_the_folder_is(tiny: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from medchat_chatglm.inspection import inspect\n"
        "card = inspect(pathlib.Path(sys.argv[1]))\n"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "print(card.layers, card.hidden_size, card.template, card.context_length, card.parameters, heavy)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny)], capture_output=True, text=True, env=env, check=True
    )
    model = load(tiny).model
    assert done.stdout.split()[:5] == [
        "2", "32", "chatglm_rounds", "2048", str(sum(p.numel() for p in model.parameters()))
    ]  # fmt: skip
    assert done.stdout.rstrip().endswith("set()")


def test_inspection_of_what_is_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert inspect(tmp_path) is None
    assert inspect(tmp_path / "absent") is None


def test_inspection_says_when_a_checkpoint_cannot_chat(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "model")
    (folder / "ice_text.model").unlink()
    card = inspect(folder)
    assert card is not None and any("无法对话" in note for note in card.notes)
