"""The kept cache gives what a fresh reading of the whole prompt would: on tiny LLaMA and Bloom models."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from medchat.api import GenerationConfig
from medchat.inference.decode import stream_tokens
from medchat.inference.interrupt import GenerationCancelled, decoder_layers
from medchat.inference.kv_cache import CausalStepper
from medchat.inference.prompt_ids import common_prefix

pytestmark = pytest.mark.torch

VOCABULARY = 97
NEVER = threading.Event()
# Bloom's softmax is computed in float32 whatever the model's dtype.
TOLERANCE = {
    ("llama", torch.float32): 2e-5,
    ("llama", torch.float64): 1e-12,
    ("mistral", torch.float32): 2e-5,
    ("bloom", torch.float32): 2e-5,
    ("bloom", torch.float64): 1e-6,
}


def build(family: str, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(11)
    if family == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
        model: PreTrainedModel = LlamaForCausalLM(config)
    else:
        bloom = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3)
        model = BloomForCausalLM(bloom)
    return model.to(dtype).eval()


@pytest.fixture(scope="module", params=["llama", "bloom"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def model(request: pytest.FixtureRequest, family: str) -> PreTrainedModel:
    return build(family, request.param)


def answer(
    stepper: CausalStepper, prompt: list[int], length: int, cancel_after: int | None = None
) -> list[int]:
    cancel = threading.Event()
    config = GenerationConfig(greedy=True, max_new_tokens=length)
    tokens: list[int] = []
    for step in stream_tokens(stepper, prompt, config, stop_ids=(), context_length=500, cancel=cancel):
        if step.token is not None:
            tokens.append(step.token)
        if len(tokens) == cancel_after:
            cancel.set()
    return tokens


def ids(count: int, seed: int) -> list[int]:
    return torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def assert_as_fresh(stepper: CausalStepper, model: PreTrainedModel, prompt: list[int]) -> None:
    """The kept cache and a fresh one agree on the logits after the prompt and on every step after it."""
    kept, fresh = stepper.prefill(prompt, NEVER), CausalStepper(model)
    expected = fresh.prefill(prompt, NEVER)
    with torch.inference_mode():
        plain = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    tolerance = TOLERANCE[model.config.model_type, model.dtype]
    for token in (*ids(4, 99), None):
        assert torch.allclose(kept, expected, rtol=tolerance, atol=tolerance)
        assert int(kept.argmax()) == int(expected.argmax())
        if token is not None:
            kept, expected = stepper.advance(token), fresh.advance(token)
    assert torch.allclose(fresh.prefill(prompt, NEVER), plain, rtol=tolerance, atol=tolerance)


def test_a_second_turn_reads_only_what_is_new_and_answers_as_if_read_whole(model: PreTrainedModel) -> None:
    stepper, first = CausalStepper(model), ids(20, 1)
    said = answer(stepper, first, 8)
    second = [*first, *said, *ids(9, 2)]
    assert_as_fresh(stepper, model, second)
    # All but the last token of the answer, which was chosen and never read.
    assert stepper.reused_tokens == len(first) + len(said) - 1
    assert answer(stepper, second, 12) == answer(CausalStepper(model), second, 12)


def test_a_cancelled_answer_leaves_a_cache_that_is_still_exact(model: PreTrainedModel) -> None:
    stepper, first = CausalStepper(model), ids(20, 1)
    said = answer(stepper, first, 30, cancel_after=5)
    assert len(said) == 5
    assert_as_fresh(stepper, model, [*first, *said, *ids(9, 2)])


def test_an_edited_early_turn_is_read_again_from_the_edit_on(model: PreTrainedModel) -> None:
    stepper, first = CausalStepper(model), ids(30, 1)
    answer(stepper, first, 8)
    edited = first.copy()
    edited[10] = (edited[10] + 1) % VOCABULARY
    assert_as_fresh(stepper, model, edited)
    assert stepper.prefill(edited, NEVER) is not None
    assert_as_fresh(stepper, model, first)
    assert stepper.reused_tokens == 10


def test_a_shorter_prompt_and_the_same_prompt_again_are_exact(model: PreTrainedModel) -> None:
    stepper, first = CausalStepper(model), ids(30, 1)
    answer(stepper, first, 8)
    assert_as_fresh(stepper, model, first[:12])
    assert stepper.reused_tokens == 11
    assert_as_fresh(stepper, model, first[:12])
    assert_as_fresh(stepper, model, first[:1])
    assert stepper.reused_tokens == 0


def test_an_interrupted_prefill_leaves_no_half_filled_cache(model: PreTrainedModel) -> None:
    stepper, first, cancel = CausalStepper(model), ids(20, 1), threading.Event()
    answer(stepper, first, 3)
    middle = decoder_layers(model)[1]
    handle = middle.register_forward_pre_hook(lambda *_: cancel.set())
    with pytest.raises(GenerationCancelled):
        stepper.prefill([*first, *ids(9, 2)], cancel)
    handle.remove()
    assert_as_fresh(stepper, model, [*first, *ids(9, 2)])


@given(
    st.lists(
        st.tuples(st.integers(0, 25), st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8)),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_of_edits_ends_at_the_logits_of_a_fresh_reading(
    model: PreTrainedModel, edits: list[tuple[int, list[int]]]
) -> None:
    stepper = CausalStepper(model)
    prompt = ids(12, 4)
    for keep, new in edits:
        prompt = [*prompt[:keep], *new]
        answer(stepper, prompt, 2)
    assert_as_fresh(stepper, model, prompt)


def test_a_sliding_window_is_never_cut_back() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(2)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=6,
        initializer_range=0.3,
    )
    model = MistralForCausalLM(config).eval()
    stepper, first = CausalStepper(model), ids(30, 1)
    answer(stepper, first, 5)
    assert_as_fresh(stepper, model, first[:20])


def test_a_cache_with_room_gives_the_bits_of_the_library_s(model: PreTrainedModel) -> None:
    """Past the room of the first read, so that the buffers grow once."""
    stepper, plain = CausalStepper(model), DynamicCache(config=model.config)
    prompt, said = ids(9, 5), ids(270, 6)
    found = [stepper.prefill(prompt, NEVER), *(stepper.advance(token) for token in said)]
    for read, logits in zip([prompt, *([token] for token in said)], found, strict=True):
        with torch.inference_mode():
            output = model(torch.tensor([read]), past_key_values=plain, use_cache=True, logits_to_keep=1)
        assert torch.equal(logits, output.logits[0, -1])


def test_a_token_is_written_into_the_room_and_nothing_is_copied(model: PreTrainedModel) -> None:
    stepper, prompt = CausalStepper(model), ids(9, 5)
    stepper.prefill(prompt, NEVER)
    before, held = stepper.lend_cache()
    places = [layer.keys.data_ptr() for layer in before.layers]
    stepper.take_cache(before, [])
    stepper.advance(3)
    stepper.prefill(prompt[:5], NEVER)
    after, left = stepper.lend_cache()
    assert [layer.keys.data_ptr() for layer in after.layers] == places
    assert (held, left) == (9, 5)


def test_common_prefix_counts_ids() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2
