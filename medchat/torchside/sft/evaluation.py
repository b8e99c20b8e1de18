"""The loss on examples that are not learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from medchat.torchside.sft.batches import Collator, shifted
from medchat.torchside.sft.features import Feature
from medchat.torchside.sft.label_loss import NO_LABEL, label_loss
from medchat.torchside.sft.processes import Processes


@torch.no_grad()
def label_losses(model: PreTrainedModel, features: Sequence[Feature], collate: Collator) -> Tensor:
    """Return the loss of every label token of some features, float32 on the CPU, without training.

    One feature at a time: of more the logits could outweigh all that training needed.
    """
    losses = []
    with _at_rest(model):
        for feature in features:
            batch, shift_labels = _inputs(model, [feature], collate)
            keep = shift_labels != NO_LABEL
            logits = model(**batch, use_cache=False, logits_to_keep=keep).logits
            found = nn.functional.cross_entropy(logits.float(), shift_labels[keep], reduction="none")
            losses.append(found.cpu())
    return torch.cat(losses)


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel,
    head: nn.Linear | None,
    features: Sequence[Feature],
    collate: Collator,
    at_once: int,
    processes: Processes,
) -> float:
    """Return the mean loss per label token over all features, computed `at_once` examples at a time.

    `head` is as `label_loss` takes it. Draws no random numbers. Every process takes its share of the batches
    and gets the same mean.
    """
    longest_first = sorted(features, key=lambda feature: -feature.length)
    batches = [longest_first[start : start + at_once] for start in range(0, len(features), at_once)]
    rounds = -(-len(batches) // processes.count) * processes.count
    total, count = 0.0, 0
    with _at_rest(model):
        for number in range(processes.rank, rounds, processes.count):
            # Several processes compute together: one without a batch of its own takes any, and adds nothing.
            batch, shift_labels = _inputs(model, batches[min(number, len(batches) - 1)], collate)
            loss = float(label_loss(model, head, batch, shift_labels, 1))
            if number < len(batches):
                total, count = total + loss, count + int((shift_labels != NO_LABEL).sum())
    sums = processes.each((total, count))
    mean: float = sum(part for part, _ in sums) / sum(part for _, part in sums)
    return mean


def _inputs(
    model: PreTrainedModel, features: Sequence[Feature], collate: Collator
) -> tuple[Mapping[str, Tensor], Tensor]:
    batch = {name: tensor.to(model.device) for name, tensor in collate(features).items()}
    return batch, shifted(batch.pop("labels"))


@contextmanager
def _at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Within this block nothing is dropped out."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
