"""P-tuning prefixes and LoRA over a ChatGLM."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chatglm_variants import EMBEDDING, Weights, config_of, load, logits, tensors_of, variant
from checkpoint_files import write_weights
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_chatglm.inspection import inspect_chatglm
from native_engine import COMPILED
from refusals import refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from medchat.api import LoadOptions, Text
from medchat.errors import CheckpointError

pytest_plugins = ("chatglm_variants",)
pytestmark = pytest.mark.torch


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


STATED: dict[str, dict[str, Any]] = {
    "ours": {"adapter_config.json": {"peft_type": "CHATGLM_P_TUNING_V2", "medchat_generation": "v11"}},
    "ours, the rule alone": {
        "adapter_config.json": {"peft_type": "CHATGLM_P_TUNING_V2", "medchat_position_rule": "v11"}
    },
    "the original script's": {
        "config.json": {"model_type": "chatglm", "vocab_size": 130528, "pre_seq_len": 3}
    },
}


@pytest.mark.parametrize("stated", STATED)
def test_a_prefix_of_the_other_generation_is_refused_though_it_fits(
    tiny: Path, tiny_v0: Path, tmp_path: Path, stated: str
) -> None:
    for base, fits in ((tiny, True), (tiny_v0, False)):
        folder = tmp_path / base.name
        folder.mkdir()
        save_file(prefix_weights(base, 3, False), folder / "prefix_encoder.safetensors")
        for name, content in STATED[stated].items():
            (folder / name).write_text(json.dumps(content))
        if fits:
            load(base, adapters=(folder,))
        else:
            error = refused(lambda: load(base, adapters=(folder,)))  # noqa: B023
            assert "v1.1" in error.what and "v0" in error.what and error.where == str(folder)


def test_an_old_prefix_checkpoint_tells_its_generation_by_its_rows(tiny_v0: Path, tmp_path: Path) -> None:
    prefix = prefix_weights(tiny_v0, 3, False)
    rows = {130528: False, 150528: True, 64: True}
    for number, fits in rows.items():
        folder = tmp_path / str(number)
        write_weights(folder, prefix | {EMBEDDING: torch.zeros(number, 1)}, "safetensors")
        if fits:
            load(tiny_v0, adapters=(folder,))
        else:
            assert "v1.1" in refused(lambda: load(tiny_v0, adapters=(folder,))).what  # noqa: B023


def test_a_lora_trained_over_the_other_generation_is_refused(tiny_v0: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["query_key_value"], init_lora_weights=False)
    get_peft_model(load(tiny_v0).model, config).save_pretrained(tmp_path)
    load(tiny_v0, adapters=(tmp_path,))
    file = tmp_path / "adapter_config.json"
    # A rule chosen on purpose says nothing where the generation is stated.
    for extra, fits in (
        ({"medchat_generation": "v11"}, False),
        ({"medchat_generation": "v0", "medchat_position_rule": "v11"}, True),
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | extra))
        if fits:
            load(tiny_v0, adapters=(tmp_path,))
        else:
            refused(lambda: load(tiny_v0, adapters=(tmp_path,)))


@pytest.mark.parametrize("front", ["module.", "base_model.model.", "_orig_mod.module."])
def test_a_prefix_behind_wrapping_names_is_the_same_prefix(tiny: Path, tmp_path: Path, front: str) -> None:
    prefix = prefix_weights(tiny, 3, False)
    write_weights(tmp_path / "plain", prefix, "bin")
    write_weights(tmp_path / "wrapped", {front + name: value for name, value in prefix.items()}, "bin")
    plain, wrapped = (load(tiny, adapters=(tmp_path / name,)) for name in ("plain", "wrapped"))
    assert torch.equal(logits(plain.model, plain.config), logits(wrapped.model, wrapped.config))


def test_a_model_behind_wrapping_names_is_the_same_model(tiny: Path, tmp_path: Path) -> None:
    weights = {f"module.{name}": value for name, value in tensors_of(tiny).items()}
    wrapped, plain = load(variant(tiny, tmp_path / "wrapped", weights)), load(tiny)
    assert torch.equal(logits(plain.model, plain.config), logits(wrapped.model, wrapped.config))


def test_a_byte_order_mark_in_config_json_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = variant(tiny, tmp_path / "marked")
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    plain, marked = load(tiny), load(folder)
    assert torch.equal(logits(plain.model, plain.config), logits(marked.model, marked.config))


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
    card = inspect_chatglm(folder)
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


@COMPILED
def test_a_prefix_and_a_lora_act_together_in_the_native_engine_as_through_torch(
    tiny: Path, tmp_path: Path
) -> None:
    write_weights(tmp_path / "prefix", prefix_weights(tiny, 3, True), "bin")
    lora(load(tiny).model, tmp_path / "lora")
    found, prompt, never = [], [Text("头痛，发热")], threading.Event()
    for names in (("prefix", "lora"), ("prefix",), ("lora",)):
        folders = tuple(tmp_path / name for name in names)
        how: dict[str, Any] = {"dtype": "float32", "quantize": "int8", "engine": "native"}
        chat: Any = ChatGLMBackbone().load(LoadOptions(tiny, adapters=folders, device="cpu", **how))
        ids = chat.prompt_ids(prompt)
        found.append(torch.as_tensor(chat.stepper.prefill(ids, never)))
        assert chat.score_batch([prompt], [("多喝水", "休息")]) == [
            [chat.score(prompt, answer) for answer in ("多喝水", "休息")]
        ]
        chat.model.get_input_embeddings().register_forward_hook(lambda *_: None)
        through_torch = torch.as_tensor(chat.stepper.prefill(ids, never))
        # Not the same bits: it did run whole before.
        assert 0 < (found[-1] - through_torch).abs().max() < 1e-4 * through_torch.std()
    assert min((found[0] - other).abs().max() for other in found[1:]) > 0.01 * found[0].std()


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


def test_lora_is_exchanged_in_place_and_a_prefix_takes_a_new_load(tiny: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        lora(load(tiny).model, folder)
    file = folders[1] / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    write_weights(tmp_path / "prefix", prefix_weights(tiny, 3, False), "safetensors")
    backbone: Any = ChatGLMBackbone()
    first, second, prefix = (
        LoadOptions(tiny, adapters=(folder,), device="cpu", dtype="float32")
        for folder in (*folders, tmp_path / "prefix")
    )
    fresh = backbone.load(second)
    loaded = backbone.load(first)
    assert backbone.exchange_adapters(loaded, prefix) is None
    with_first = logits(loaded.model, loaded.model.config)
    exchanged = backbone.exchange_adapters(loaded, second)
    assert exchanged.model is loaded.model
    with_second = logits(exchanged.model, loaded.model.config)
    assert not torch.equal(with_first, with_second)
    assert torch.equal(with_second, logits(fresh.model, fresh.model.config))
    with pytest.raises(CheckpointError):
        backbone.exchange_adapters(exchanged, replace(first, adapters=(tmp_path / "absent",)))
    assert torch.equal(with_second, logits(exchanged.model, loaded.model.config))
