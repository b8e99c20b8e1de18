"""The decode loop and the choice of tokens, on a stepper that needs no model."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medchat.api import Delta, Finish, GenerationConfig
from medchat.errors import MedchatError, UsageError
from medchat.inference.answer_deltas import DecodeStep, EncodedPrompt, stream_deltas
from medchat.inference.decode import stream_tokens
from medchat.inference.detokenizer import StopText
from medchat.inference.interrupt import GenerationCancelled, interruptible
from medchat.inference.sampling import TokenChooser

pytestmark = pytest.mark.torch

VOCABULARY = 12
END = 11
GREEDY = GenerationConfig(greedy=True, max_new_tokens=50)


class ScriptedStepper:
    """Answers with a fixed list of tokens; counts its forward passes."""

    def __init__(self, script: Sequence[int]) -> None:
        self._script = list(script)
        self.forwards = 0
        self.reused_tokens = 0

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> Tensor:
        return self._next()

    def advance(self, token: int) -> Tensor:
        return self._next()

    def _next(self) -> Tensor:
        logits = torch.zeros(VOCABULARY)
        logits[self._script[self.forwards]] = 5.0
        self.forwards += 1
        return logits


class Letters:
    """Decodes id n to the n-th letter."""

    def feed(self, token: int) -> str:
        return chr(ord("a") + token)

    def finish(self) -> str:
        return ""


def steps_of(script: Sequence[int], config: GenerationConfig = GREEDY, **changes: object) -> list[DecodeStep]:
    arguments = {"stop_ids": {END}, "context_length": 100, "cancel": threading.Event(), **changes}
    return list(stream_tokens(ScriptedStepper(script), [1, 2, 3], config, **arguments))  # type: ignore[arg-type]


def test_every_stop_id_ends_the_answer_and_is_not_shown() -> None:
    for end in (10, 11):
        steps = steps_of([4, 5, end], stop_ids={10, 11})
        assert steps == [DecodeStep(4), DecodeStep(5), DecodeStep(finish=Finish.STOP)]


def test_the_answer_ends_at_max_new_tokens() -> None:
    steps = steps_of([4] * 9, GenerationConfig(greedy=True, max_new_tokens=4))
    assert steps == [DecodeStep(4)] * 4 + [DecodeStep(finish=Finish.LENGTH)]


def test_prompt_and_answer_together_never_exceed_the_context() -> None:
    assert steps_of([4] * 9, context_length=8) == [DecodeStep(4)] * 5 + [DecodeStep(finish=Finish.LENGTH)]


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError) as caught:
        steps_of([4], context_length=3)
    assert "3" in caught.value.what
    assert caught.value.remedy


def test_no_forward_pass_is_spent_on_a_token_that_is_never_chosen() -> None:
    stepper = ScriptedStepper([4] * 9)
    config = GenerationConfig(greedy=True, max_new_tokens=3)
    list(stream_tokens(stepper, [1], config, stop_ids=(), context_length=99, cancel=threading.Event()))
    assert stepper.forwards == 3


def test_cancelling_between_tokens_stops_before_the_next_forward_pass() -> None:
    stepper, cancel = ScriptedStepper([4] * 50), threading.Event()
    got = []
    for step in stream_tokens(stepper, [1], GREEDY, stop_ids=(), context_length=99, cancel=cancel):
        got.append(step)
        if len(got) == 3:
            cancel.set()
    assert got == [DecodeStep(4)] * 3 + [DecodeStep(finish=Finish.CANCELLED)]
    assert stepper.forwards == 3


def test_cancelled_before_it_began_reads_nothing() -> None:
    cancel = threading.Event()
    cancel.set()
    stepper = ScriptedStepper([4])
    steps = list(stream_tokens(stepper, [1], GREEDY, stop_ids=(), context_length=9, cancel=cancel))
    assert steps == [DecodeStep(finish=Finish.CANCELLED)]
    assert stepper.forwards == 0


def test_a_forward_pass_is_stopped_between_two_layers() -> None:
    cancel, ran = threading.Event(), []

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ran.append(self)
            cancel.set()
            return x

    layers = nn.Sequential(Layer(), Layer(), Layer())
    with pytest.raises(GenerationCancelled), interruptible(layers, cancel):
        layers(torch.zeros(1))
    assert ran == [layers[0]]
    layers(torch.zeros(1))  # outside the block nothing interrupts
    assert len(ran) == 4


# ---------------------------------------------------------------- from tokens to text


def deltas_of(script: Sequence[int], stops: Sequence[str] = ()) -> list[Delta]:
    stepper = ScriptedStepper(script)
    steps = stream_tokens(
        stepper, [1, 2], GREEDY, stop_ids={END}, context_length=99, cancel=threading.Event()
    )
    return list(stream_deltas(steps, EncodedPrompt(2, stepper), Letters(), stops=stops))


def test_the_last_delta_alone_carries_the_reason_and_the_counts() -> None:
    deltas = deltas_of([0, 1, 2, END])
    assert "".join(delta.text for delta in deltas) == "abc"
    assert [delta.finish for delta in deltas[:-1]] == [None] * 3
    assert deltas[-1] == Delta("", 3, 2, 0, Finish.STOP)


def test_a_stop_text_ends_the_answer_and_no_part_of_it_is_shown() -> None:
    deltas = deltas_of([0, 1, 2, 3, 4, 5, END], stops=["cde"])
    assert "".join(delta.text for delta in deltas) == "ab"
    assert deltas[-1].finish is Finish.STOP


def test_the_start_of_a_stop_text_that_did_not_come_is_shown_after_all() -> None:
    assert "".join(delta.text for delta in deltas_of([0, 2, 3, END], stops=["cde"])) == "acd"


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
@settings(max_examples=300)
def test_stop_texts_are_found_however_the_text_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    watch, got = StopText(stops), ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        got += watch.feed(text[start:end])
    got += watch.finish()
    # Fed one character at a time, a stop text ends the answer as soon as its last character is there;
    # a coarser feed may also see an earlier, longer one. Both end before the first that is complete.
    firsts = [position for stop in stops if (position := text.find(stop)) >= 0]
    assert watch.found == bool(firsts)
    if not firsts:
        assert got == text
    else:
        assert text.startswith(got)
        assert not any(stop in got for stop in stops)


# ---------------------------------------------------------------- choosing


def test_greedy_takes_the_best_and_never_draws() -> None:
    state = torch.random.get_rng_state()
    chooser = TokenChooser(GREEDY, [1])
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3))
    assert {chooser.choose(logits) for _ in range(20)} == {int(logits.argmax())}
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_seed_is_one_answer_and_the_global_generator_is_left_alone() -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3))

    def draw(seed: int | None) -> list[int]:
        chooser = TokenChooser(GenerationConfig(seed=seed, top_p=1.0, temperature=1.0), [1])
        return [chooser.choose(logits) for _ in range(20)]

    state = torch.random.get_rng_state()
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert torch.equal(state, torch.random.get_rng_state())


def test_top_k_and_top_p_keep_the_tokens_they_should() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for settings_, allowed in (
        (GenerationConfig(temperature=1.0, top_p=1.0, top_k=2, seed=1), {0, 1}),
        (GenerationConfig(temperature=1.0, top_p=0.75, seed=1), {0, 1}),
        (GenerationConfig(temperature=1.0, top_p=0.9, seed=1), {0, 1, 2}),
    ):
        chooser = TokenChooser(settings_, [])
        assert {chooser.choose(logits) for _ in range(300)} == allowed


def test_draws_follow_the_softmax_of_the_tempered_logits() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    chooser = TokenChooser(GenerationConfig(temperature=0.5, top_p=1.0, seed=5), [])
    counts = torch.bincount(torch.tensor([chooser.choose(logits) for _ in range(4000)]), minlength=3) / 4000
    assert torch.allclose(counts, (logits / 0.5).softmax(0), atol=0.03)


def test_repetition_penalty_counts_the_prompt_and_the_answer() -> None:
    logits = torch.tensor([1.0, 0.95, 0.9, -3.0])
    chooser = TokenChooser(GenerationConfig(greedy=True, repetition_penalty=1.5), [0])
    assert [chooser.choose(logits) for _ in range(2)] == [1, 2]


@given(
    st.floats(0, 2, exclude_min=True, allow_subnormal=False),
    st.floats(0, 1, exclude_min=True, allow_subnormal=False),
    st.floats(0, 2, exclude_min=True, allow_subnormal=False),
    st.integers(0, 20),
)
@settings(max_examples=200)
def test_every_allowed_setting_yields_a_token(
    temperature: float, top_p: float, penalty: float, top_k: int
) -> None:
    config = GenerationConfig(
        temperature=temperature, top_p=top_p, repetition_penalty=penalty, top_k=top_k, seed=1
    )
    chooser = TokenChooser(config, [0, 1])
    logits = torch.tensor([30.0, -20.0, 0.5, 7.0])
    assert all(0 <= chooser.choose(logits) < 4 for _ in range(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("config", [GREEDY, GenerationConfig(seed=1)])
def test_non_finite_logits_are_an_error_that_names_the_way_out(bad: float, config: GenerationConfig) -> None:
    logits = torch.zeros(9)
    logits[4] = bad
    with pytest.raises(MedchatError) as caught:
        TokenChooser(config, [1]).choose(logits)
    assert caught.value.exit_code == 1
    assert "--dtype float32" in caught.value.remedy
