"""Drafts from the prompt and the answer change how soon tokens come, never which: the native engine verifies them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from native_engine import COMPILED
from reference_decoder import drawn, shape_of

from medchat.api import Finish, GenerationConfig
from medchat.inference.answer_deltas import DecodeStep
from medchat.inference.cpu_engine.decoder import Tokens
from medchat.inference.cpu_engine.decoder_shape import Positions
from medchat.inference.cpu_engine.decoder_weights import Floats
from medchat.inference.decode import Stepper, stream_tokens
from medchat.inference.interrupt import GenerationCancelled
from medchat.inference.native_sequence import CausalSequence, Places, SequenceStepper
from medchat.inference.prompt_lookup import PromptLookup, Speculation, TokenIndex

ROWS, CONTEXT = 50, 400
GREEDY = GenerationConfig(greedy=True, max_new_tokens=40)
#: A prompt in which much is said twice.
PROMPT = [*range(3, 15), *range(5, 15), 7, 8, 9]


class TinyDecoder:
    """A native decoder of two layers with random weights, an embedding and turns."""

    def __init__(self, family: str, seed: int, bits: int = 8, rows: int = ROWS) -> None:
        self.native = drawn(shape_of(family, precise=seed % 2 == 0), bits, rows, seed, rank=seed % 3)
        self._embedding = np.random.default_rng(seed).standard_normal((ROWS, 40)).astype(np.float32)
        self.reads: list[int] = []

    def embed(self, ids: Sequence[int]) -> Floats:
        return self._embedding[list(ids)]

    def turns(self, positions: Places) -> tuple[Floats | None, Floats | None]:
        if self.native.shape.positions is not Positions.ROTARY:
            return None, None
        angles = positions.astype(np.float32)[:, None] * np.float32(0.3) ** np.arange(6, dtype=np.float32)
        return np.cos(angles), np.sin(angles)

    def read(self, tokens: Sequence[Tokens], cancelled: Callable[[], bool] | None = None) -> Floats:
        self.reads += [len(part.embeddings) for part in tokens]
        return self.native.read(tokens, cancelled=cancelled)


@cache
def decoder(family: str, seed: int) -> TinyDecoder:
    return TinyDecoder(family, seed)


def stepper(family: str = "llama", seed: int = 0) -> SequenceStepper:
    return SequenceStepper(decoder(family, seed), CausalSequence)


def speculating(inner: Stepper, config: GenerationConfig = GREEDY, **changes: Any) -> PromptLookup:
    """Return `inner` with drafts that cost nothing, and so are always read: the clock stands still."""
    how = {"speculation": Speculation(), "clock": lambda: 0.0, **changes}
    return PromptLookup(inner, config, CONTEXT, **how)


def steps(
    inner: Stepper,
    prompt: Sequence[int] = PROMPT,
    config: GenerationConfig = GREEDY,
    stop_ids: Collection[int] = (),
    cancel: threading.Event | None = None,
) -> Iterator[DecodeStep]:
    event = cancel or threading.Event()
    return stream_tokens(inner, prompt, config, stop_ids=stop_ids, context_length=CONTEXT, cancel=event)


# ---------------------------------------------------------------- the same tokens


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["llama", "bloom", "chatglm"])
@COMPILED
def test_tokens_that_are_read_together_get_the_bits_of_each_alone(family: str, bits: int) -> None:
    for seed in range(2):  # of 16 bits, and precise
        made = TinyDecoder(family, seed, bits)
        alone, together = (SequenceStepper(made, CausalSequence) for _ in range(2))
        for one in (alone, together):
            one.prefill(PROMPT)
        tokens = [token % ROWS for token in range(60, 90)]
        wanted = [alone.advance(token) for token in tokens]
        found: list[Floats] = []
        for count in (2, 6, 16, 1, 5):  # every way the kernels put tokens together
            chosen = tokens[len(found) :][:count]
            together.advance_many([*chosen, 1, 2, 3], threading.Event())
            together.crop(3 + len(chosen))
            found += list(together.advance_many(chosen, threading.Event()))
        assert np.array_equal(found, wanted)


CONFIGS = st.builds(
    GenerationConfig,
    max_new_tokens=st.integers(1, 40),
    greedy=st.booleans(),
    temperature=st.sampled_from([0.05, 0.3, 1.0]),
    top_p=st.sampled_from([0.5, 1.0]),
    top_k=st.sampled_from([0, 3]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2, 0.8]),
    seed=st.integers(0, 5),
)
#: Runs that come again, as in text that is quoted.
PROMPTS = st.lists(st.sampled_from([(3, 4, 5), (5, 6), (7,), (9, 10, 11, 12)]), min_size=1, max_size=12).map(
    lambda runs: list(chain.from_iterable(runs))
)


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(["llama", "bloom"]),
    seed=st.integers(0, 3),
    prompt=PROMPTS,
    config=CONFIGS,
    stop_ids=st.sets(st.integers(0, ROWS - 1), max_size=4),
)
@example(family="llama", seed=0, prompt=PROMPT, config=GREEDY, stop_ids=set())
@COMPILED
def test_an_answer_is_the_same_token_for_token_with_drafts(
    family: str, seed: int, prompt: list[int], config: GenerationConfig, stop_ids: set[int]
) -> None:
    inner = stepper(family, seed)
    plain = list(steps(inner, prompt, config, stop_ids))
    assert list(steps(speculating(inner, config), prompt, config, stop_ids)) == plain
    # What the drafts have left in the cache does not change the next answer either.
    assert list(steps(inner, prompt, config, stop_ids)) == plain


@COMPILED
def test_drafts_are_read_together_and_some_count() -> None:
    inner, speculation = stepper(), Speculation()
    reads = decoder("llama", 0).reads
    plain = list(steps(inner))
    reads.clear()
    assert list(steps(speculating(inner, speculation=speculation))) == plain
    assert 0 < speculation.accepted < speculation.drafted
    # Every reading gives one token more than what counts of its draft.
    assert len(reads) == len(plain) - 1 - speculation.accepted


class QuotingStepper:
    """Repeats the prompt over and over; notes how many tokens were appended at a time."""

    reused_tokens = 0

    def __init__(self, *, verifies: bool = True) -> None:
        self.verifier = self if verifies else None
        self.length, self.read = 0, list[int]()
        self.cancel_while_reading = False

    def prefill(self, ids: Sequence[int], cancel: threading.Event) -> Floats:
        self.prompt, self.length = list(ids), len(ids)
        return self._logits()

    def advance(self, token: int) -> Floats:
        self.read.append(1)
        self.length += 1
        return self._logits()

    def advance_many(self, tokens: Sequence[int], cancel: threading.Event) -> list[Floats]:
        if self.cancel_while_reading:
            cancel.set()
            raise GenerationCancelled
        self.read.append(len(tokens))
        found = []
        for _ in tokens:
            self.length += 1
            found.append(self._logits())
        return found

    def crop(self, count: int) -> None:
        self.length -= count

    def _logits(self) -> Floats:
        logits = np.zeros(ROWS, np.float32)
        logits[self.prompt[self.length % len(self.prompt)]] = 1
        return logits


def test_what_a_stepper_cannot_verify_is_not_drafted() -> None:
    inner = QuotingStepper(verifies=False)
    assert len(list(steps(speculating(inner)))) == 41
    assert inner.read == [1] * 39


def test_drafts_of_a_quoted_prompt_get_longer_and_end_with_the_answer() -> None:
    inner = QuotingStepper()
    tokens = [step.token for step in steps(speculating(inner), range(20, 40))]
    assert tokens[:40] == [*range(20, 40)] * 2
    # The matched tokens one at a time; 6, 12 and 16 together; then what the answer has room for.
    assert inner.read == [1, 1, 6, 12, 16, 3]


@pytest.mark.parametrize("while_reading", [False, True])
def test_a_cancel_ends_the_answer_before_another_token(while_reading: bool) -> None:
    inner, cancel = QuotingStepper(), threading.Event()
    going, found = steps(speculating(inner), range(20, 40), cancel=cancel), []
    for step in going:
        found.append(step)
        inner.cancel_while_reading = while_reading
        if len(found) == (3 if while_reading else 5):  # in front of a draft; within one
            if not while_reading:
                cancel.set()
            break
    found += going
    assert [step.finish for step in found] == [None] * (len(found) - 1) + [Finish.CANCELLED]
    assert len(found) == (4 if while_reading else 6)


@COMPILED
def test_a_cancel_while_a_draft_is_read_leaves_what_was_read_before() -> None:
    one, other, cancel = stepper(), stepper(), threading.Event()
    for inner in (one, other):
        inner.prefill(PROMPT)
    cancel.set()
    with pytest.raises(GenerationCancelled):
        one.advance_many([1, 2, 3], cancel)
    assert np.array_equal(one.advance(4), other.advance(4))


@COMPILED
def test_a_head_that_is_not_the_engines_verifies_nothing() -> None:
    assert SequenceStepper(TinyDecoder("llama", 0, rows=0), CausalSequence).verifier is None
    assert stepper().verifier is not None


# ---------------------------------------------------------------- what is drafted


@pytest.mark.parametrize(
    ("ids", "most", "wanted"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], 2, [4, 5]),
        ([1, 2, 3, 4, 5, 9, 2, 3], 3, [4, 5, 9]),  # two tokens match
        ([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 1, [4]),  # three do, though two stood together later
        ([1, 2, 7, 1, 2, 8, 1, 2], 1, [8]),  # of several the last
        ([6, 6, 6, 6], 4, [6, 6, 6, 6]),
        ([8, 1, 2, 1, 2], 5, [1, 2, 1, 2, 1]),  # what goes on goes on
        ([1, 2, 3, 4], 3, []),
        ([1], 3, []),
        ([1, 2, 1, 2], 0, []),
    ],
)
def test_a_draft_is_what_followed_the_last_tokens_before(
    ids: list[int], most: int, wanted: list[int]
) -> None:
    assert TokenIndex(ids).draft(most) == wanted


def test_two_tokens_are_match_enough_once_drafts_have_won_something() -> None:
    index, speculation = TokenIndex([1, 2, 3, 9, 1, 2]), Speculation()
    speculation.begin_answer()
    speculation.count_single(1.0)
    assert index.draft(1, speculation.least_match) == []
    speculation.count_draft(5, 5, 1.5)
    assert index.draft(1, speculation.least_match) == [3]
    speculation.count_draft(5, 0, 5.0)
    assert index.draft(1, speculation.least_match) == []


# ---------------------------------------------------------------- whether it pays


def spent(speculation: Speculation, *, accepted: int, cost: float, tokens: int = 1000) -> float:
    """Return how long an answer of so many tokens takes, in tokens, if all of it can be drafted by fives."""
    speculation.begin_answer()
    speculation.count_single(2.0)
    total, written = 1.0, 1
    while written < tokens:
        if speculation.pays():
            speculation.count_draft(5, accepted, 2.0 * cost)
            total, written = total + cost, written + accepted + 1
        else:
            speculation.count_single(2.0)
            total, written = total + 1, written + 1
    return total / written


@pytest.mark.parametrize("cost", [1.2, 1.5, 3.0, 6.0])
@pytest.mark.parametrize("tokens", [100, 1000])
def test_drafts_that_fail_cost_less_than_three_in_a_hundred(cost: float, tokens: int) -> None:
    fresh = spent(Speculation(), accepted=0, cost=cost, tokens=tokens)
    known = Speculation()
    spent(known, accepted=0, cost=cost, tokens=3000)  # has seen what drafts cost here
    assert 1 < spent(known, accepted=0, cost=cost, tokens=3000) < 1 / 0.97
    assert fresh * tokens < tokens / 0.97 + cost  # the first one's cost nobody could know


@pytest.mark.parametrize(("accepted", "cost", "bound"), [(5, 1.5, 0.3), (3, 1.5, 0.45), (1, 1.5, 0.85)])
def test_drafts_that_count_are_read_all_the_time(accepted: int, cost: float, bound: float) -> None:
    assert spent(Speculation(), accepted=accepted, cost=cost) < bound


def test_drafts_are_tried_again_after_they_failed_and_after_they_were_too_dear() -> None:
    speculation = Speculation()
    spent(speculation, accepted=0, cost=6.0)
    assert spent(speculation, accepted=5, cost=1.5, tokens=3000) < 0.6


def test_a_pause_of_the_machine_is_no_cost_of_a_draft() -> None:
    speculation = Speculation()
    speculation.begin_answer()
    speculation.count_single(0.1)
    speculation.count_draft(5, 5, 100.0)
    assert speculation.pays()
