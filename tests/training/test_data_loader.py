"""The order of records: every one once, little padding, and the same whatever the number of processes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchat.training.data_loader import LengthSampler

pytestmark = pytest.mark.torch

LENGTHS = st.lists(st.integers(1, 300), max_size=300)


def cut(indices: list[int], size: int) -> list[list[int]]:
    return [indices[at : at + size] for at in range(0, len(indices), size)]


def efficiency(lengths: list[int], batches: list[list[int]]) -> float:
    return sum(lengths) / sum(max(lengths[index] for index in batch) * len(batch) for batch in batches)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_every_record_comes_once_an_epoch_and_an_epoch_can_be_had_again(
    lengths: list[int], step: int, epoch: int, group: bool
) -> None:
    order = LengthSampler(lengths, step, 7, group=group)
    order.set_epoch(epoch)
    first = list(order)
    assert sorted(first) == list(range(len(lengths))) and len(order) == len(lengths)
    again = LengthSampler(lengths, step, 7, group=group)
    again.set_epoch(epoch)
    assert list(again) == first


def test_epochs_and_seeds_differ() -> None:
    lengths = [random.Random(1).randint(20, 200) for _ in range(64)]
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        order = LengthSampler(lengths, 8, seed)
        order.set_epoch(epoch)
        orders.append(list(order))
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_steps_do_not_come_by_length() -> None:
    lengths = list(range(1, 321))
    first = [lengths[step[0]] for step in cut(list(LengthSampler(lengths, 8, 0)), 8)]
    assert first[0] == 320 and first[1:] != sorted(first[1:], reverse=True)


@pytest.mark.parametrize("micro", [2, 8, 16])
def test_padding_is_nearly_gone_even_with_few_records(micro: int) -> None:
    chance = random.Random(0)
    lengths = [chance.randint(20, 120) for _ in range(1000)]
    for count, least in ((128, 0.91), (1000, 0.97)):
        some = lengths[:count]
        assert efficiency(some, cut(list(LengthSampler(some, 16, 0)), micro)) > least
        assert efficiency(some, cut(list(LengthSampler(some, 16, 0, group=False)), micro)) < 0.85


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 16))
def test_the_longest_record_comes_first_and_within_a_step_lengths_fall(lengths: list[int], step: int) -> None:
    found = [[lengths[index] for index in each] for each in cut(list(LengthSampler(lengths, step, 3)), step)]
    assert all(each == sorted(each, reverse=True) for each in found)
    if len(lengths) >= step:
        assert found[0][0] == max(lengths)
