"""The loss computed in the head, some rows at a time, is the loss of the whole logits, and so are its gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from medchat.training import fused_loss as module
from medchat.training.fused_loss import NO_LABEL, label_head, label_loss

pytestmark = pytest.mark.torch
ROWS = 97


def tiny(kind: str) -> Any:
    torch.manual_seed(3)
    if kind == "bloom":
        return BloomForCausalLM(BloomConfig(vocab_size=ROWS, hidden_size=32, n_layer=2, n_head=4))
    config = {
        "vocab_size": ROWS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": 0,
    }
    if kind == "scaled":
        return CohereForCausalLM(CohereConfig(**config, logit_scale=0.25))
    if kind == "lora":
        lora = LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        return get_peft_model(LlamaForCausalLM(LlamaConfig(**config)), lora)
    return LlamaForCausalLM(LlamaConfig(**config, tie_word_embeddings=kind == "tied"))


def batch(seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, ROWS, (3, 14), generator=random)
    labels = torch.where(torch.rand(ids.shape, generator=random) < 0.5, ids, NO_LABEL)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "shift_labels": labels}


def loss_and_gradients(
    model: Any, head: nn.Linear | None, items: int | None, *, in_place: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    inputs = batch()
    loss = label_loss(model, head, inputs, inputs.pop("shift_labels"), items, in_place=in_place)
    loss.backward()
    return loss.detach(), {
        name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("items", [None, 41])
@pytest.mark.parametrize("rows", [1, 4, 512])
@pytest.mark.parametrize("kind", ["llama", "tied", "bloom", "lora"])
def test_loss_and_every_gradient_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, kind: str, rows: int, items: int | None, in_place: bool
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", rows * 4 * ROWS)
    model = tiny(kind).double()
    head = label_head(model, batch())
    assert head is not None
    loss, gradients = loss_and_gradients(model, head, items, in_place=in_place)
    expected, wanted = loss_and_gradients(model, None, items)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert gradients.keys() == wanted.keys() and gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", ["llama", "tied", "bloom"])
def test_gradients_added_in_place_accumulate_without_a_table_of_their_own(kind: str) -> None:
    """Over two backward passes; autograd hands the wide tables' gradients to nobody."""
    model = tiny(kind).double()
    head = label_head(model, batch())
    assert head is not None
    _, wanted = loss_and_gradients(model, head, 41)
    handed: list[str] = []
    for name, value in model.named_parameters():
        value.register_hook(lambda given, name=name: handed.append(name) if given is not None else None)
    model.zero_grad()
    for _ in range(2):
        inputs = batch()
        label_loss(model, head, inputs, inputs.pop("shift_labels"), 41, in_place=True).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, 2 * wanted[name], rtol=1e-9, atol=1e-12, msg=name)
    wide = {name for name, value in model.named_parameters() if value.shape[0] == ROWS}
    assert wide and not wide & set(handed) and set(handed) | wide == wanted.keys()


def test_padding_learns_nothing_in_place_either() -> None:
    model = tiny("llama")
    inputs = {**batch(), "input_ids": batch()["input_ids"].index_fill(1, torch.tensor([0, 5]), 0)}
    shifted = inputs.pop("shift_labels")
    label_loss(model, label_head(model, batch()), inputs, shifted, in_place=True).backward()
    gradient = model.get_input_embeddings().weight.grad
    assert not gradient[0].any() and gradient[1:].any()


@pytest.mark.parametrize("autocast", [False, True])
def test_in_place_gradients_are_those_handed_out_in_lower_precision_too(autocast: bool) -> None:
    model = tiny("tied") if autocast else tiny("tied").to(torch.bfloat16)
    head = label_head(model, batch())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, wanted = loss_and_gradients(model, head, 9)
        again, found = loss_and_gradients(model, head, 9, in_place=True)
    assert loss == again and found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert gradient.dtype is wanted[name].dtype
        torch.testing.assert_close(gradient, wanted[name], rtol=2e-2, atol=1e-3, msg=name)


def test_evaluating_makes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    head, inputs = label_head(model, batch()), batch()
    made: list[object] = []
    monkeypatch.setattr(module, "add_product", lambda *given: made.append(given))
    with torch.no_grad():
        loss = label_loss(model, head, inputs, inputs.pop("shift_labels"), 1)
    assert loss > 0 and not made and all(value.grad is None for value in model.parameters())


def test_a_loss_whose_gradients_were_added_in_place_is_not_scaled() -> None:
    model = tiny("llama")
    inputs = batch()
    loss = label_loss(model, label_head(model, batch()), inputs, inputs.pop("shift_labels"), in_place=True)
    with pytest.raises(RuntimeError, match="scaled"):
        (loss / 2).backward()


def test_the_loss_is_the_librarys_own() -> None:
    model = tiny("llama").double()
    inputs = batch()
    shifted = inputs.pop("shift_labels")
    labels = torch.cat([torch.full((3, 1), NO_LABEL), shifted[:, :-1]], 1)
    shifted[:, -1] = NO_LABEL
    own = model(**inputs, labels=labels).loss
    loss = label_loss(model, label_head(model, batch()), inputs, shifted)
    torch.testing.assert_close(loss.float(), own.float(), rtol=1e-6, atol=0)


def test_a_scaled_loss_scales_every_gradient() -> None:
    model = tiny("llama").double()
    inputs = batch()
    shifted = inputs.pop("shift_labels")
    head = label_head(model, batch())
    _, once = loss_and_gradients(model, head, 7)
    model.zero_grad()
    (label_loss(model, head, inputs, shifted, 7) * 2).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, once[name] * 2)


@pytest.mark.parametrize("kind", ["scaled", "lora on the head", "bias"])
def test_a_model_that_does_more_with_its_logits_keeps_them(kind: str) -> None:
    model = tiny("scaled" if kind == "scaled" else "llama")
    if kind == "bias":
        model.lm_head.bias = nn.Parameter(torch.ones(ROWS))
    if kind == "lora on the head":
        model = get_peft_model(model, LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    assert label_head(model, batch()) is None


def test_asking_for_the_head_draws_no_random_numbers_and_leaves_training_on() -> None:
    model = tiny("llama")
    model.config.attention_dropout = 0.5
    model.train()
    torch.manual_seed(5)
    expected = copy.deepcopy(torch.get_rng_state())
    assert label_head(model, batch()) is model.lm_head
    assert torch.equal(torch.get_rng_state(), expected) and model.training
    assert "forward" not in vars(model.lm_head)


def test_a_batch_without_a_label_costs_nothing_and_changes_nothing() -> None:
    model = tiny("llama")
    inputs = batch()
    shifted = torch.full_like(inputs.pop("shift_labels"), NO_LABEL)
    loss = label_loss(model, label_head(model, batch()), inputs, shifted, 5)
    loss.backward()
    assert loss == 0
    assert all(not value.grad.any() for value in model.parameters() if value.grad is not None)


def test_in_mixed_precision_the_loss_stays_accurate() -> None:
    model = tiny("llama")
    head = label_head(model, batch())
    expected, wanted = loss_and_gradients(model, None, 9)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = loss_and_gradients(model, head, 9)
    assert loss.dtype is torch.float32 and gradients["lm_head.weight"].dtype is torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    angle = nn.functional.cosine_similarity(
        gradients["lm_head.weight"].flatten(), wanted["lm_head.weight"].flatten(), dim=0
    )
    assert angle > 0.999


def test_held_out_loss_needs_no_gradient() -> None:
    model = tiny("llama")
    inputs = batch()
    shifted = inputs.pop("shift_labels")
    with torch.no_grad():
        loss = label_loss(model, label_head(model, batch()), inputs, shifted)
    assert not loss.requires_grad and loss > 0
