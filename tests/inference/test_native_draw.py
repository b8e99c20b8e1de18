"""The native library draws what Python draws, on every instruction set, and moves torch's generator as torch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from native_engine import COMPILED

from medchat.api import GenerationConfig
from medchat.inference import native_draw, token_draw
from medchat.inference.cpu_engine.draw import STATE_WORDS, TwisterState, draw_token
from medchat.inference.cpu_engine.library import VARIABLE, open_library
from medchat.inference.native_draw import can_draw_natively, draw_natively
from medchat.inference.token_draw import TokenFilters, draw

pytestmark = [pytest.mark.torch, COMPILED]


def generator(before: int = 0) -> torch.Generator:
    """Return a generator that has made `before` words, an odd number of them too."""
    made = torch.Generator().manual_seed(5)
    if before:
        torch.empty(before, dtype=torch.int32).random_(generator=made)
    return made


@pytest.mark.parametrize("left_out", [None, 0.3])
@pytest.mark.parametrize("before", [0, 1, 623, 624, 625])
@pytest.mark.parametrize("count", [1, 2, 127, 311, 312, 313, 700, 5000])
def test_the_generator_is_left_where_torch_leaves_it(count: int, before: int, left_out: float | None) -> None:
    ours, torchs = generator(before), generator(before)
    draw_natively(torch.linspace(-3, 3, count), 1.0, left_out, ours)
    torch.empty(count, dtype=torch.float64).uniform_(generator=torchs)
    assert torch.equal(ours.get_state(), torchs.get_state())


@pytest.mark.parametrize("before", [0, 1, 623])
@pytest.mark.parametrize("settings", [{}, {"top_p": 1.0}, {"temperature": 2.0, "top_p": 0.99}])
def test_python_and_the_library_draw_the_same(
    settings: dict[str, Any], before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(before)
    rows = [torch.randn(3001, generator=random) * (1 + number % 5) for number in range(20)]
    filters, found = TokenFilters(GenerationConfig(**settings)), []
    for native in (True, False):
        monkeypatch.setattr(token_draw, "can_draw_natively", lambda native=native: native)
        source = generator(before)
        found.append([draw(row, filters, source) for row in rows])
        found.append(source.get_state().tolist())
    assert found[:2] == found[2:]
    assert len(set(found[0])) > 10


@pytest.mark.parametrize("left_out", [None, 0.0, 1e-9, 0.4, 1.0])
def test_every_instruction_set_draws_the_same(
    left_out: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.random.default_rng(3).standard_normal(1003).astype(np.float32) * 4
    drawn = []
    for name in open_library().usable:
        monkeypatch.setenv(VARIABLE, name)
        state, tokens = TwisterState(np.arange(STATE_WORDS, dtype=np.uint32), 7), []
        for _ in range(10):
            token, state = draw_token(scores, 0.8, left_out, state)
            tokens.append(token)
        drawn.append((tokens, state.used, state.words.tolist()))
    assert all(one == drawn[0] for one in drawn)
    assert any(token is not None for token in drawn[0][0])


def test_rounding_that_decides_is_left_undecided() -> None:
    state = TwisterState(np.arange(STATE_WORDS, dtype=np.uint32), 0)
    assert draw_token(np.zeros(1000, np.float32), 1.0, 0.3, state)[0] is None


def test_a_torch_that_draws_otherwise_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_draw_natively()
    monkeypatch.setattr(native_draw, "draw_natively", lambda *_: 0)
    assert not can_draw_natively.__wrapped__()


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
