"""The memory that `medchat sft` expects of a net of one's own: counted, and measured on tensors without values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from byte_nets import AttendingBackbone
from net_training import data, sft
from torch import Tensor, nn

from medchat.training.measured_step import StepSize, loops_over_positions, measured_step
from medchat.training.optimizers import Precision

pytestmark = pytest.mark.torch
WHOLE = Precision("float32", torch.float32, torch.float32)
MIXED = Precision("mixed", torch.float32, torch.bfloat16, autocast=True)
SIZE = StepSize(rows=4, length=32, labels=64)


class Squares(nn.Module):
    """Keeps 64 tables of position by position for each text, which are nearly all that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(64, 1, 1))

    def forward(self, ids: Tensor) -> Tensor:
        states = self.table(ids)
        tables = (states @ states.transpose(1, 2)).unsqueeze(1) * self.scale
        mixed = torch.sigmoid(tables).mean(1) @ states
        logits: Tensor = self.head(mixed)
        return logits


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.memory = nn.Embedding(300, 24), nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, 300)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.memory(self.table(ids))[0])
        return logits


def test_what_a_step_keeps_is_counted_byte_by_byte() -> None:
    tables = 4 * 64 * 32 * 32 * 4  # rows, tables, positions by positions, bytes
    held = measured_step(Squares, WHOLE, SIZE, loops=False)
    # Kept is the sigmoid's result; its gradient, and that of its argument, are there beside it for a moment.
    assert 3 * tables <= held.activations < 3.2 * tables
    longer = measured_step(Squares, WHOLE, SIZE.cut(16), loops=False)
    assert held.activations / longer.activations == pytest.approx(4, rel=0.1)


def test_autocast_keeps_less_and_bfloat16_half() -> None:
    half = Precision("bfloat16", torch.bfloat16, torch.bfloat16)
    whole, mixed, least = (
        measured_step(Squares, precision, SIZE, loops=False).activations for precision in (WHOLE, MIXED, half)
    )
    assert least == pytest.approx(whole / 2, rel=0.05)
    assert least < mixed <= whole


def test_gradients_are_counted_where_they_are_kept() -> None:
    class Wide(Recurrent):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(100_000, 24)

    held = measured_step(Wide, WHOLE, StepSize(1, 4, 4), loops=False)
    table = 100_000 * 24 * 4
    assert table <= held.activations + held.gradients < 1.1 * table
    assert table <= held.alone < 1.1 * table  # for a moment it exists, whatever becomes of it


def test_a_long_text_of_a_recurrent_net_is_reckoned_from_short_ones() -> None:
    assert loops_over_positions(Recurrent) and not loops_over_positions(Squares)
    size = StepSize(rows=2, length=28, labels=28)
    run, reckoned = (measured_step(Recurrent, WHOLE, size, loops=loops) for loops in (False, True))
    assert reckoned.activations == pytest.approx(run.activations, rel=0.1)


class Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(257, 257)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.table(ids)
        return found if float(found.detach().sum()) > 0 else -found


class ChoosingBackbone(AttendingBackbone):
    name = "choosing"

    def net(self, config: Any) -> nn.Module:
        return Choosing()


@pytest.mark.slow  # every alternative is measured
def test_full_fine_tuning_is_estimated_with_the_alternatives_that_a_net_has(tmp_path: Path) -> None:
    net = AttendingBackbone()
    net.tiny(tmp_path / "base")
    run = sft(tmp_path / "base", tmp_path / "out", method="full")
    recipe = net.recipes["full"]
    found = recipe.estimate(run, recipe.survey(data(), run))
    assert found is not None and found.parameters == found.trainable > 0
    flags = " ".join(found.alternatives)
    assert "--method lora" in flags and "qlora" not in flags and "checkpointing" not in flags


def test_a_net_that_needs_values_is_not_estimated(tmp_path: Path) -> None:
    net = ChoosingBackbone()
    net.tiny(tmp_path / "base")
    assert net.recipes["full"].estimate(sft(tmp_path / "base", tmp_path / "out", method="full"), None) is None


@pytest.mark.parametrize("targets", [(), ("linear1", "linear2")])
def test_lora_is_estimated_with_the_matrices_that_it_trains(targets: tuple[str, ...], tmp_path: Path) -> None:
    net = AttendingBackbone()
    net.tiny(tmp_path / "base")
    run = sft(tmp_path / "base", tmp_path / "out", lora_targets=targets, lora_r=3)
    found = net.recipes["lora"].estimate(run, None)
    # Of 16 to 32 and back, and of 16 to 16, at rank 3.
    assert found is not None and found.trainable == 3 * (2 * (16 + 32) + (0 if targets else 2 * 16))
