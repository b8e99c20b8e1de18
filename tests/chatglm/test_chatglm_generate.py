"""The ChatGLM model under the libraries that must be able to drive it, on tiny random weights."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medchat_chatglm.blocks import ChatGLMBlock
from medchat_chatglm.collators import IGNORED, AnswerCollator, TrainingSample
from medchat_chatglm.config_file import PositionRule
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.modeling import ChatGLMForConditionalGeneration
from medchat_chatglm.prefix import train_prefix_only
from medchat_chatglm.stepper import ChatGLMStepper
from torch import Tensor
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from medchat.errors import UsageError
from medchat.inference.growing_cache import GrowingCacheLayer
from medchat.inference.interrupt import GenerationCancelled

pytestmark = pytest.mark.torch

GMASK, SOP, END, PAD = 91, 94, 95, 3
RULES = list(PositionRule)


def build(rule: str = "v11", **keys: object) -> ChatGLMForConditionalGeneration:
    """A tiny model with weights large enough that masks and positions matter to every logit."""
    torch.manual_seed(7)
    config = ChatGLMConfig(
        vocab_size=99, hidden_size=32, inner_hidden_size=48, num_layers=2, num_attention_heads=2,
        bos_token_id=SOP, pad_token_id=PAD, initializer_range=0.25, medchat_position_rule=rule, **keys,
    )  # fmt: skip
    return ChatGLMForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def model() -> ChatGLMForConditionalGeneration:
    return build()


def prompt(*text: int) -> list[int]:
    return [*text, GMASK, SOP]


PROMPTS = [prompt(5, 6, 7, 8, 9, 10), prompt(11), prompt(12, 3, 13)]


def left_padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def greedy_steps(model: ChatGLMForConditionalGeneration, ids: list[int], count: int) -> list[int]:
    stepper = ChatGLMStepper(model)
    logits, written = stepper.prefill(ids), []
    for _ in range(count):
        written.append(int(logits.argmax()))
        logits = stepper.advance(written[-1])
    return written


@pytest.mark.parametrize("keys", [{}, {"pre_seq_len": 4}], ids=["plain", "prefix"])
def test_hidden_states_asked_for_in_the_configuration_are_returned(keys: dict[str, int]) -> None:
    model, ids = build(**keys), torch.tensor([prompt(5, 6, 7)])
    assert model(ids).hidden_states is None
    wanted = model(ids, output_hidden_states=True).hidden_states
    model.config.output_hidden_states = True
    for outputs in (model(ids), model.transformer(ids)):
        assert len(outputs.hidden_states) == model.config.num_layers + 1
        assert all(map(torch.equal, outputs.hidden_states, wanted))
    assert model(ids, output_hidden_states=False).hidden_states is None


# ---------------------------------------------------------------- generate


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("keys", [{}, {"pre_seq_len": 4}], ids=["plain", "prefix"])
def test_a_left_padded_batch_writes_what_each_row_writes_alone(rule: str, keys: dict[str, int]) -> None:
    model = build(rule, **keys)
    ids, mask = left_padded(PROMPTS)
    together = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8, eos_token_id=None)
    for row, alone in zip(together, PROMPTS, strict=True):
        assert row[ids.shape[1] :].tolist() == greedy_steps(model, alone, 8)


def test_padding_is_recognised_at_the_start_of_a_row_only(model: ChatGLMForConditionalGeneration) -> None:
    ids, mask = left_padded(PROMPTS)
    assert PAD in PROMPTS[2], "the case needs the pad id inside a text, where it is text"
    settings = {
        "max_new_tokens": 1,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    inferred = model.generate(ids, **settings).logits[0]
    assert torch.equal(inferred, model.generate(ids, attention_mask=mask, **settings).logits[0])


@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search_finds_the_same_with_and_without_a_cache_and_padding(
    model: ChatGLMForConditionalGeneration, beams: int
) -> None:
    ids, mask = left_padded(PROMPTS)
    settings = {"num_beams": beams, "do_sample": False, "max_new_tokens": 6, "eos_token_id": END}
    cached = model.generate(ids, attention_mask=mask, **settings)
    assert torch.equal(model.generate(ids, attention_mask=mask, use_cache=False, **settings), cached)
    for row, alone in zip(cached, PROMPTS, strict=True):
        single = model.generate(torch.tensor([alone]), attention_mask=torch.ones(1, len(alone)), **settings)
        written = single[0, len(alone) :].tolist()
        assert row[ids.shape[1] :].tolist()[: len(written)] == written


def test_sampling_repeats_under_a_seed_and_stops_at_the_end_token(
    model: ChatGLMForConditionalGeneration,
) -> None:
    ids = torch.tensor([PROMPTS[0]])
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(model.generate(ids, do_sample=True, temperature=2.0, max_new_tokens=200)[0].tolist())
    assert runs[0] == runs[1]
    assert END not in runs[0][ids.shape[1] : -1]
    assert runs[0][-1] == END or len(runs[0]) == ids.shape[1] + 200


def test_a_static_cache_writes_what_a_growing_one_writes(model: ChatGLMForConditionalGeneration) -> None:
    ids, mask = left_padded(PROMPTS)
    settings = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 8}
    growing = model.generate(ids, **settings)
    static = StaticCache(config=model.config, max_cache_len=ids.shape[1] + 12)
    assert torch.equal(model.generate(ids, past_key_values=static, **settings), growing)


# ---------------------------------------------------------------- stepping


def test_a_cancelled_prefill_keeps_no_cache(model: ChatGLMForConditionalGeneration) -> None:
    stepper, cancel = ChatGLMStepper(model), threading.Event()
    cancel.set()
    with pytest.raises(GenerationCancelled):
        stepper.prefill(PROMPTS[0], cancel)
    assert stepper.cache is None
    with pytest.raises(UsageError):
        stepper.advance(5)


def test_a_second_prompt_owes_nothing_to_the_first(model: ChatGLMForConditionalGeneration) -> None:
    stepper = ChatGLMStepper(model)
    stepper.prefill(PROMPTS[0])
    stepper.advance(5)
    again = stepper.prefill(PROMPTS[1])
    assert torch.equal(again, ChatGLMStepper(model).prefill(PROMPTS[1]))
    assert stepper.reused_tokens == 0


def test_a_filled_cache_without_positions_is_refused(model: ChatGLMForConditionalGeneration) -> None:
    cache = DynamicCache(config=model.config)
    model(torch.tensor([PROMPTS[0]]), past_key_values=cache)
    with pytest.raises(UsageError, match="position_ids"):
        model(torch.tensor([[5]]), past_key_values=cache)


@given(
    steps=st.lists(
        st.one_of(st.integers(1, 300), st.sampled_from(["crop", "reorder", "shrink"])), min_size=1, max_size=8
    )
)
def test_the_roomy_cache_holds_what_the_library_s_cache_holds(steps: list[int | str]) -> None:
    roomy, plain = GrowingCacheLayer(), DynamicLayer()
    generator = torch.Generator().manual_seed(len(steps))
    rows = 3
    for step in steps:
        if isinstance(step, int):
            states = torch.randn(2, rows, 2, step, 4, generator=generator)
            returned, expected = roomy.update(*states), plain.update(*states)
            assert all(torch.equal(one, other) for one, other in zip(returned, expected, strict=True))
            continue
        if not plain.get_seq_length():
            continue
        for layer in (roomy, plain):
            if step == "crop":
                layer.crop(-min(5, layer.get_seq_length() - 1))
            elif step == "reorder":
                layer.reorder_cache(torch.arange(rows).flip(0))
            else:
                layer.batch_select_indices(torch.arange(max(1, rows - 1)))
        rows = plain.keys.shape[0]
    assert roomy.get_seq_length() == plain.get_seq_length()


# ---------------------------------------------------------------- loading and saving


@pytest.mark.parametrize("keys", [{}, {"tie_word_embeddings": False}, {"pre_seq_len": 3}], ids=str)
def test_a_saved_model_loads_from_its_folder(keys: dict[str, int], tmp_path: Path) -> None:
    model = build(**keys)
    model.save_pretrained(tmp_path)
    again, report = ChatGLMForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.tensor([PROMPTS[0]])
    assert torch.equal(again.eval()(ids).logits, model(ids).logits)


def test_the_parameters_have_the_names_of_the_published_files() -> None:
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(ChatGLMConfig(tie_word_embeddings=False))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # 28 layers of 13 tensors and 4 more; the 28 `inv_freq` are not parameters
    # (docs/specs/models.md, "ChatGLM-6B tensors").
    assert len(shapes) == 28 * 12 + 4
    layer = "transformer.layers.27."
    assert shapes[layer + "attention.query_key_value.weight"] == (12288, 4096)
    assert shapes[layer + "mlp.dense_4h_to_h.weight"] == (4096, 16384)
    assert shapes["lm_head.weight"] == shapes["transformer.word_embeddings.weight"] == (150528, 4096)
    assert all(tensor.is_meta for tensor in model.state_dict().values())


# ---------------------------------------------------------------- numbers


def test_float16_scores_beyond_its_range_stay_finite() -> None:
    model = build().half()
    for block in model.transformer.layers:
        block.attention.query_key_value.weight.data *= 60
    ids = torch.tensor([PROMPTS[0] * 1])
    with torch.inference_mode():
        hidden = model.transformer.layers[0].input_layernorm(model.transformer.word_embeddings(ids))
        fused = model.transformer.layers[0].attention.query_key_value(hidden).view(1, -1, 2, 3, 16)
        scores = torch.einsum("bqhd,bkhd->bhqk", fused[..., 0, :].float(), fused[..., 1, :].float())
        assert scores.abs().max() > torch.finfo(torch.float16).max, "the case must leave float16's range"
        assert torch.isfinite(model(ids).logits).all()


def test_norms_kept_in_float32_serve_a_half_precision_model() -> None:
    model, whole = build().bfloat16(), build().bfloat16()
    for name, module in model.named_modules():
        if name.endswith("layernorm"):
            module.float()
    ids = torch.tensor([PROMPTS[0]])
    with torch.inference_mode():
        mixed, plain = model(ids).logits, whole(ids).logits
    assert mixed.dtype == torch.bfloat16
    assert torch.allclose(mixed.float(), plain.float(), atol=0.5)


def test_padding_rows_yield_numbers_and_no_gradient(model: ChatGLMForConditionalGeneration) -> None:
    trained = copy.deepcopy(model)
    ids, mask = left_padded(PROMPTS)
    labels = torch.where(mask.bool(), ids, IGNORED)
    output = trained(ids, attention_mask=mask, labels=labels)
    assert torch.isfinite(output.logits).all()
    output.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in trained.parameters())


# ---------------------------------------------------------------- training


@settings(max_examples=25)
@given(
    rule=st.sampled_from(RULES),
    rows=st.lists(
        st.tuples(
            st.lists(st.integers(5, 80), max_size=6), st.lists(st.integers(5, 80), min_size=1, max_size=5)
        ),
        min_size=1, max_size=3,
    ),
)  # fmt: skip
def test_what_is_trained_is_what_decoding_sees(rule: str, rows: list[tuple[list[int], list[int]]]) -> None:
    model = build(rule)
    samples = [TrainingSample((*prompt(*text), *answer, END), len(text) + 2) for text, answer in rows]
    with torch.inference_mode():
        logits = model(**AnswerCollator(model.config)(samples)).logits
    for one, trained in zip(samples, logits, strict=True):
        stepper = ChatGLMStepper(model)
        served = [stepper.prefill(one.ids[: one.prompt_length])]
        served += [stepper.advance(token) for token in one.ids[one.prompt_length : -1]]
        at_answer = trained[one.prompt_length - 1 : len(one.ids) - 1]
        assert torch.allclose(torch.stack(served), at_answer, atol=2e-4)


def test_lora_on_query_key_value_trains_and_merges(model: ChatGLMForConditionalGeneration) -> None:
    config = peft.LoraConfig(
        r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    ids = torch.tensor([PROMPTS[0] + [20, 21, END]])
    labels = torch.where(torch.arange(ids.shape[1]) < len(PROMPTS[0]), IGNORED, ids)
    adapted.train()
    adapted.enable_input_require_grads()
    adapted.gradient_checkpointing_enable()
    adapted(input_ids=ids, labels=labels).loss.backward()
    trained = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all("lora" in name and grad.abs().sum() > 0 for name, grad in trained.items())
    adapted.eval()
    before = adapted(input_ids=ids).logits
    assert not torch.allclose(before, model(ids).logits, atol=1e-3)
    assert torch.allclose(adapted.merge_and_unload()(ids).logits, before, atol=1e-4)
    written = adapted.generate(input_ids=ids[:, :8], do_sample=False, max_new_tokens=3)
    assert written.shape[1] > 8


def test_prefix_tuning_trains_the_prefix_and_nothing_else() -> None:
    model = build(pre_seq_len=3, prefix_projection=True).bfloat16()
    names = train_prefix_only(model)
    ids = torch.tensor([PROMPTS[0] + [20, END]])
    loss = model.train()(ids, labels=ids).loss
    loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == set(names) and all("prefix_encoder" in name for name in names)
    assert all(model.get_parameter(name).dtype == torch.float32 for name in names)


def test_fully_sharded_blocks_give_the_same_loss_and_gradient(tmp_path: Path) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain, sharded = build().train(), build().train()
    ids = torch.tensor([PROMPTS[0] + [20, 21, END]])
    init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        blocks = [module for module in sharded.modules() if isinstance(module, ChatGLMBlock)]
        assert {type(block).__name__ for block in blocks} == sharded._no_split_modules
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        expected, loss = plain(ids, labels=ids).loss, sharded(ids, labels=ids).loss
        expected.backward()
        loss.backward()
        assert torch.allclose(loss, expected)
        name = "transformer.layers.1.mlp.dense_h_to_4h.weight"
        gradient = sharded.get_parameter(name).grad.full_tensor()
        assert torch.allclose(gradient, plain.get_parameter(name).grad, atol=1e-6)
    finally:
        destroy_process_group()
