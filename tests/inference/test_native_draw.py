"""The native library draws what Python draws, on every instruction set, and both move the generator as torch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from native_engine import COMPILED

from medchat.api import GenerationConfig
from medchat.inference import token_draw
from medchat.inference.cpu_engine.draw import STATE_WORDS, TwisterState, draw_token
from medchat.inference.cpu_engine.library import VARIABLE, open_library
from medchat.inference.reference_draw import generator_at, twister_state
from medchat.inference.token_draw import TokenFilters, draw
from medchat.inference.twister import Twister

pytestmark = [pytest.mark.torch, COMPILED]


def generator(before: int = 0) -> torch.Generator:
    """Return a generator that has made `before` words, an odd number of them too."""
    made = torch.Generator().manual_seed(5)
    if before:
        torch.empty(before, dtype=torch.int32).random_(generator=made)
    return made


def same(one: TwisterState, other: TwisterState) -> bool:
    return one.used == other.used and np.array_equal(one.words, other.words)


@pytest.mark.parametrize("left_out", [None, 0.3])
@pytest.mark.parametrize("before", [0, 1, 623, 624, 625])
@pytest.mark.parametrize("count", [1, 2, 127, 311, 312, 313, 700, 5000])
def test_the_generator_is_left_where_torch_leaves_it(count: int, before: int, left_out: float | None) -> None:
    torchs, ours = generator(before), Twister(0)
    ours.state = twister_state(torchs)
    drawn = draw_token(np.linspace(-3, 3, count, dtype=np.float32), 1.0, left_out, ours.state)
    uniform = torch.empty(count, dtype=torch.float64).uniform_(generator=torchs)
    assert same(drawn[1], twister_state(torchs))
    assert np.array_equal(ours.uniform(count), uniform.numpy())
    assert same(ours.state, twister_state(torchs))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32 + 7, 2**63, -3])
def test_one_seed_is_the_same_generator_as_torchs(seed: int) -> None:
    assert same(Twister(seed).state, twister_state(torch.Generator().manual_seed(seed)))


def test_a_state_becomes_torchs_generator_and_back() -> None:
    there = generator(631)
    again = generator_at(twister_state(there))
    assert torch.equal(torch.rand(1000, generator=again), torch.rand(1000, generator=there))


@pytest.mark.parametrize("before", [0, 1, 623])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_p": 1.0},
        {"temperature": 2.0, "top_p": 0.99},
        {"top_k": 20},
        {"top_k": 7, "top_p": 1.0},
        {"top_k": 1, "temperature": 2.0},
        {"top_k": 2000, "top_p": 0.9},
        {"top_k": 3000, "top_p": 1.0},
    ],
)
def test_python_and_the_library_draw_the_same(
    settings: dict[str, Any], before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(before)
    rows = [torch.randn(3001, generator=random) * (1 + number % 5) for number in range(20)]
    filters, found = TokenFilters(GenerationConfig(**settings)), []
    for native in (True, False):
        monkeypatch.setattr(token_draw, "can_draw_natively", lambda native=native: native)
        source = Twister(5)
        source.uniform(before)
        found.append([draw(row.numpy(), filters, source) for row in rows])
        found.append(source.state.words.tolist())
    assert found[:2] == found[2:]
    assert len(set(found[0])) > 10


@pytest.mark.parametrize("top_k", [1, 16, 400])
def test_what_equals_the_last_that_top_k_keeps_is_kept_too(top_k: int) -> None:
    scores = np.repeat(np.linspace(4, -4, 200, dtype=np.float32), 5)
    state, drawn = TwisterState(np.arange(STATE_WORDS, dtype=np.uint32), 0), set()
    for _ in range(300):
        token, state = draw_token(scores, 1e9, None, state, top_k=top_k)
        drawn.add(token)
    kept = -(-top_k // 5) * 5
    assert max(drawn) < kept
    assert len(drawn) > 0.4 * kept


def test_scores_that_dividing_makes_equal_are_kept_together() -> None:
    low, high = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    scores = np.array([low, high, 1000, -3], np.float32)
    state, drawn = TwisterState(np.arange(STATE_WORDS, dtype=np.uint32), 0), set()
    for _ in range(200):
        token, state = draw_token(scores, 1e5, None, state, top_k=2)
        drawn.add(token)
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize("top_k", [0, 30])
@pytest.mark.parametrize("left_out", [None, 0.0, 1e-9, 0.4, 1.0])
def test_every_instruction_set_draws_the_same(
    left_out: float | None, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.random.default_rng(3).standard_normal(1003).astype(np.float32) * 4
    drawn = []
    for name in open_library().usable:
        monkeypatch.setenv(VARIABLE, name)
        state, tokens = TwisterState(np.arange(STATE_WORDS, dtype=np.uint32), 7), []
        for _ in range(10):
            token, state = draw_token(scores, 0.8, left_out, state, top_k=top_k)
            tokens.append(token)
        drawn.append((tokens, state.used, state.words.tolist()))
    assert all(one == drawn[0] for one in drawn)
    assert any(token is not None for token in drawn[0][0])


def test_rounding_that_decides_is_left_undecided() -> None:
    state = TwisterState(np.arange(STATE_WORDS, dtype=np.uint32), 0)
    assert draw_token(np.zeros(1000, np.float32), 1.0, 0.3, state)[0] is None


WORDS = np.zeros(STATE_WORDS, np.uint32)


@pytest.mark.parametrize(
    ("words", "used"), [(WORDS[1:], 0), (WORDS.astype(np.uint64), 0), (WORDS, 625), (WORDS, -1)]
)
def test_what_is_no_state_is_refused(words: Any, used: int) -> None:
    with pytest.raises(ValueError, match="words"):
        TwisterState(words, used)


@pytest.mark.parametrize(
    ("scores", "temperature", "left_out"),
    [
        (np.zeros(0, np.float32), 1.0, 0.3),
        (np.zeros((2, 3), np.float32), 1.0, 0.3),
        (np.zeros(5), 1.0, 0.3),
        (np.zeros(5, np.float32), 0.0, 0.3),
        (np.zeros(5, np.float32), float("nan"), 0.3),
        (np.zeros(5, np.float32), 1.0, -0.1),
        (np.zeros(5, np.float32), 1.0, 1.1),
    ],
)
def test_what_cannot_be_drawn_from_is_refused_before_any_pointer(
    scores: Any, temperature: float, left_out: float
) -> None:
    with pytest.raises(ValueError, match=r"scores|temperature"):
        draw_token(scores, temperature, left_out, TwisterState(WORDS, 0))


def test_a_negative_top_k_is_refused_before_any_pointer() -> None:
    with pytest.raises(ValueError, match="top_k"):
        draw_token(np.zeros(5, np.float32), 1.0, None, TwisterState(WORDS, 0), top_k=-1)
