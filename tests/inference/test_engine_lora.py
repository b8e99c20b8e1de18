"""LoRA beside the packed weights of a model that the native engine runs whole: what torch computes with both."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from native_engine import COMPILED, advance, dense, distance, read
from safetensors.torch import save_file
from talking_miniatures import FAMILIES

from medchat.api import GenerationConfig, LoadOptions, Text
from medchat.inference.adapters.lora import activate
from medchat.inference.cpu_engine.library import VARIABLE, open_library
from medchat.inference.engine import NativeLinear
from medchat.inference.quantization import replace_modules

pytest_plugins = ("talking_miniatures",)
pytestmark = [pytest.mark.torch, COMPILED]

#: What rounding activations to 24 bits may change in logits, as a share of their spread.
NEAR = 1e-4
GREEDY = GenerationConfig(max_new_tokens=12, greedy=True)
NEVER = threading.Event()
QUESTIONS = ("头痛怎么办？", "发热", "咳嗽三天了要不要去医院？")
ONE, OTHER = "adapter0", "adapter1"
#: The linears of a layer, by their last name; the first of them has another rank.
LINEARS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
    "bloom": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "huozi": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "chatglm": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
}


def write_lora(
    model: torch.nn.Module, folder: Path, targets: Sequence[str], rank: int, **stated: Any
) -> Path:
    """Write an adapter of the linears of `model` called one of `targets`: its effect is about that of the weights."""
    random = torch.Generator().manual_seed(rank)
    tensors = {}
    for name, layer in model.named_modules():
        leaf = name.rpartition(".")[2]
        if leaf in targets and isinstance(layer, torch.nn.Linear):
            own = stated.get("rank_pattern", {}).get(leaf, rank)
            down = torch.randn(own, layer.in_features, generator=random) / layer.in_features**0.5
            up = torch.randn(layer.out_features, own, generator=random)
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(targets)}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **stated}), encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@dataclass(frozen=True)
class WithTwo:
    """A model, the same with two adapters, and that one as torch computes it from the very weights."""

    base: Any
    native: Any
    reference: Any

    def ids(self, question: str = QUESTIONS[2]) -> list[int]:
        return list(self.native.prompt_ids([Text(question)]))

    def read(self, chat: Any, question: str = QUESTIONS[2]) -> torch.Tensor:
        return read(chat, self.ids(question))

    def logits(self, *names: str) -> torch.Tensor:
        activate(self.native.model, names)
        return self.read(self.native)


@pytest.fixture(scope="module")
def with_two(
    talkative: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], WithTwo]:
    """Return a function from a family to its models: one adapter on every linear, one on the first alone."""

    @cache
    def loaded(family: str) -> WithTwo:
        folder, base = tmp_path_factory.mktemp("adapters"), talkative(family)
        how: dict[str, Any] = {"device": "cpu", "dtype": "float32", "quantize": "int8", "engine": "native"}
        bare: Any = FAMILIES[family].load(LoadOptions(base, **how))
        linears = LINEARS[family]
        adapters = (
            write_lora(bare.model, folder / "one", linears, 3, rank_pattern={linears[0]: 17}),
            write_lora(bare.model, folder / "other", linears[:1], 5, use_rslora=True),
        )
        native, reference = (
            FAMILIES[family].load(LoadOptions(base, adapters=adapters, **how)) for _ in range(2)
        )
        assert sum(1 for _ in replace_modules(reference.model, NativeLinear, dense)) > 4
        return WithTwo(bare, native, reference)

    return loaded


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_that_are_switched_act_as_through_torch_each_alone_and_together(
    with_two: Callable[[str], WithTwo], family: str
) -> None:
    models, found = with_two(family), []
    for names in ((ONE, OTHER), (ONE,), (OTHER,)):
        activate(models.reference.model, names)
        models.reference.stepper.forget()  # torch's keeps what the adapters before gave
        found.append(models.logits(*names))
        assert distance(found[-1], models.read(models.reference)) < NEAR
        steps = [advance(chat, 9) for chat in (models.native, models.reference)]
        assert distance(*steps) < NEAR
    assert min(distance(found[0], found[1]), distance(found[0], found[2]), distance(*found[1:])) > 0.01
    assert torch.equal(models.logits(), models.read(models.base))
    assert torch.equal(models.logits(ONE, OTHER), found[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_adapters_runs_whole_and_not_layer_by_layer(
    with_two: Callable[[str], WithTwo], family: str
) -> None:
    models = with_two(family)
    whole = models.logits(ONE)
    handle = models.native.model.get_input_embeddings().register_forward_hook(lambda *_: None)
    through_torch = models.logits(ONE)
    handle.remove()
    assert distance(whole, through_torch) < NEAR


@pytest.mark.parametrize("family", FAMILIES)
def test_with_adapters_a_batch_answers_and_scores_as_each_question_alone(
    with_two: Callable[[str], WithTwo], family: str
) -> None:
    models = with_two(family)
    activate(models.native.model, (ONE, OTHER))
    sampled = GenerationConfig(max_new_tokens=12, temperature=1.5, seed=3)
    rows = [models.ids(question) for question in QUESTIONS]
    together = models.native.answer_rows(rows, sampled, None)
    assert together == [models.native.answer_rows([row], sampled, None)[0] for row in rows]
    assert together != models.base.answer_rows(rows, sampled, None)
    scores = [torch.tensor(chat.score([Text("发热")], "多喝水")) for chat in (models.native, models.base)]
    assert distance(*scores) > 0.01


def test_a_kept_cache_threads_and_instruction_sets_change_no_bit_beside_adapters(
    with_two: Callable[[str], WithTwo], monkeypatch: pytest.MonkeyPatch
) -> None:
    models, before = with_two("llama"), torch.get_num_threads()
    stepper = models.native.stepper
    fresh = models.logits(ONE, OTHER)
    stepper.prefill([*models.ids()[:-3], 9, 9], NEVER)
    assert torch.equal(models.logits(ONE, OTHER), fresh) and stepper.reused_tokens == len(models.ids()) - 3
    for instructions in open_library().usable:
        monkeypatch.setenv(VARIABLE, instructions)
        for threads in (1, 3):
            torch.set_num_threads(threads)
            stepper.forget()
            found = models.logits(ONE, OTHER)
            torch.set_num_threads(before)
            assert torch.equal(found, fresh), (instructions, threads)


def test_a_switch_leaves_nothing_of_the_other_adapter_in_the_cache(
    with_two: Callable[[str], WithTwo],
) -> None:
    models = with_two("llama")
    models.native.stepper.forget()
    fresh = models.logits(OTHER)
    models.logits(ONE)
    assert torch.equal(models.logits(OTHER), fresh)
    assert models.native.stepper.reused_tokens == 0


def test_adapters_are_exchanged_over_the_same_packed_weights(with_two: Callable[[str], WithTwo]) -> None:
    models = with_two("llama")
    one = Path(models.native.describe()["adapters"][0])
    options = LoadOptions(models.base.loaded.checkpoint.folder, device="cpu", dtype="float32")
    plain, weights = models.read(models.base), packed_addresses(models.base)
    chat: Any = FAMILIES["llama"].exchange_adapters(models.base, replace(options, adapters=(one,)))
    assert torch.equal(models.read(chat), models.logits(ONE))
    chat = FAMILIES["llama"].exchange_adapters(chat, options)
    assert torch.equal(models.read(chat), plain) and packed_addresses(chat) == weights


def packed_addresses(chat: Any) -> set[int]:
    return {layer.weight.data_ptr() for layer in chat.model.modules() if isinstance(layer, NativeLinear)}
