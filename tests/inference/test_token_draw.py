"""A token is drawn as the filters of transformers and the `multinomial` of torch draw it, from one state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medchat.api import GenerationConfig
from medchat.inference import token_draw
from medchat.inference.sampling import TokenChooser
from medchat.inference.token_draw import Floats

pytestmark = [pytest.mark.torch, pytest.mark.no_cover]

FULL_VOCABULARY = 150528


class SortingChooser:
    """How tokens were chosen before: every filter over the whole row, and a full sort for top-p."""

    def __init__(self, config: GenerationConfig, prompt_ids: list[int]) -> None:
        self._config, self._seen = config, list(prompt_ids)
        self._filters = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
        if config.top_k:
            self._filters.append(TopKLogitsWarper(config.top_k))
        if config.top_p < 1:
            self._filters.append(TopPLogitsWarper(config.top_p))
        assert config.seed is not None
        self._generator = torch.Generator().manual_seed(config.seed)

    def choose(self, logits: Tensor) -> int:
        scores = logits.float().unsqueeze(0)
        if self._config.repetition_penalty != 1:
            penalty = RepetitionPenaltyLogitsProcessor(self._config.repetition_penalty)
            scores = penalty(torch.tensor([self._seen]), scores)
        scores = self._filters(torch.empty(1, 0, dtype=torch.long), scores - scores.max())
        token = int(torch.multinomial(scores.softmax(-1)[0], 1, generator=self._generator))
        self._seen.append(token)
        return token


def smooth(row: Tensor) -> Tensor:
    return row


def in_quarters(row: Tensor) -> Tensor:
    return (row * 4).round() / 4


def all_equal(row: Tensor) -> Tensor:
    return torch.zeros_like(row)


def one_far_ahead(row: Tensor) -> Tensor:
    return row.index_fill(0, torch.tensor([len(row) // 2]), 40.0)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "smooth": smooth,
    "bfloat16": Tensor.bfloat16,
    "in quarters": in_quarters,
    "all equal": all_equal,
    "one far ahead": one_far_ahead,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "top-k before top-p": {"top_k": 20},
    "top-k alone": {"top_k": 7, "top_p": 1.0},
    "no filter": {"top_p": 1.0},
    "nearly no filter": {"top_p": 0.9999},
    "the likeliest alone": {"top_p": 1e-6},
    "cold": {"temperature": 0.05, "top_p": 0.9},
    "hot": {"temperature": 2.0, "top_p": 0.95},
    "more than there are": {"top_k": 1_000_000},
    "penalty": {"repetition_penalty": 1.3},
}


def rows(kind: str, count: int, size: int) -> Iterator[Tensor]:
    """Yield `count` rows of `size` logits, from flat to steep."""
    random = torch.Generator().manual_seed(count)
    for number in range(count):
        yield KINDS[kind](torch.randn(size, generator=random) * (0.3 + number % 9))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", SETTINGS)
def test_ten_thousand_rows_give_the_tokens_of_a_full_sort(named: str, kind: str) -> None:
    """In all: 200 rows for each of 50 combinations; what went before decides the state of the generator."""
    config = GenerationConfig(**{"seed": 11, **SETTINGS[named]})
    chooser, sorting = TokenChooser(config, [3, 5, 3]), SortingChooser(config, [3, 5, 3])
    for number, row in enumerate(rows(kind, 200, 230)):
        assert chooser.choose(row) == sorting.choose(row), f"row {number}"


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_library_the_tokens_are_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_draw, "can_draw_natively", lambda: False)
    for named in SETTINGS:
        config = GenerationConfig(**{"seed": 12, **SETTINGS[named]})
        chooser, sorting = TokenChooser(config, [3, 5, 3]), SortingChooser(config, [3, 5, 3])
        for number, row in enumerate(rows(kind, 20, 230)):
            assert chooser.choose(row) == sorting.choose(row), f"{named}, row {number}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_vocabulary_gives_the_tokens_of_a_full_sort(kind: str) -> None:
    config = GenerationConfig(seed=5)
    chooser, sorting = TokenChooser(config, []), SortingChooser(config, [])
    for row in rows(kind, 5, FULL_VOCABULARY):
        assert chooser.choose(row) == sorting.choose(row)


@pytest.fixture
def left_to_the_sort(monkeypatch: pytest.MonkeyPatch) -> list[Floats]:
    """The rows whose choice was left to the full sort."""
    asked = []
    drawn = token_draw.draw_with_torch

    def watched(scores: Floats, *others: Any) -> int:
        asked.append(scores)
        return drawn(scores, *others)

    monkeypatch.setattr(token_draw, "draw_with_torch", watched)
    return asked


NOT_SORTED = ["as they are", "top-k before top-p", "no filter", "the likeliest alone", "cold", "penalty"]


@pytest.mark.parametrize("named", NOT_SORTED)
def test_a_row_as_a_model_gives_it_is_not_sorted(named: str, left_to_the_sort: list[Floats]) -> None:
    chooser = TokenChooser(GenerationConfig(**{"seed": 2, **SETTINGS[named]}), [1])
    random = torch.Generator().manual_seed(4)
    for _ in range(5):
        chooser.choose(torch.randn(FULL_VOCABULARY, generator=random) * 4)
    assert not left_to_the_sort


def test_tokens_that_only_the_order_of_a_sort_separates_are_left_to_the_sort(
    left_to_the_sort: list[Floats],
) -> None:
    TokenChooser(GenerationConfig(seed=2), []).choose(torch.zeros(1000))
    assert left_to_the_sort


def test_two_tokens_that_rounding_separates_are_left_to_the_sort(left_to_the_sort: list[Floats]) -> None:
    drawn = torch.empty(2, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(3))
    config = GenerationConfig(seed=3, temperature=1.0, top_p=1.0)
    TokenChooser(config, []).choose(drawn.log().float())
    assert left_to_the_sort
    TokenChooser(config, []).choose(drawn.log().float() + torch.tensor([0.001, 0]))
    assert len(left_to_the_sort) == 1
