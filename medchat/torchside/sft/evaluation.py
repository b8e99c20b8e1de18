"""The loss on examples that are not learned from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from medchat.torchside.sft.batches import Collator, shifted
from medchat.torchside.sft.features import Feature
from medchat.torchside.sft.label_loss import NO_LABEL
from medchat.torchside.sft.processes import Processes


@torch.no_grad()
def label_losses(model: PreTrainedModel, features: Sequence[Feature], collate: Collator) -> Tensor:
    """Return the loss of every label token of some features, float32 on the CPU, without training."""
    batch = {name: tensor.to(model.device) for name, tensor in collate(features).items()}
    shift_labels = shifted(batch.pop("labels"))
    keep = shift_labels != NO_LABEL
    was_training = model.training
    model.eval()
    try:
        logits = model(**batch, use_cache=False, logits_to_keep=keep).logits
    finally:
        model.train(was_training)
    return torch.nn.functional.cross_entropy(logits.float(), shift_labels[keep], reduction="none").cpu()


def mean_loss(
    model: PreTrainedModel,
    features: Sequence[Feature],
    collate: Collator,
    at_once: int,
    processes: Processes,
) -> float:
    """Return the mean loss per label token over all features, computed `at_once` examples at a time.

    Draws no random numbers. Every process takes its share of the batches and gets the same mean.
    """
    longest_first = sorted(features, key=lambda feature: -feature.length)
    batches = [longest_first[start : start + at_once] for start in range(0, len(features), at_once)]
    rounds = -(-len(batches) // processes.count) * processes.count
    total, count = 0.0, 0
    for number in range(processes.rank, rounds, processes.count):
        # Several processes compute together: one without a batch of its own takes any, and adds nothing.
        losses = label_losses(model, batches[min(number, len(batches) - 1)], collate)
        if number < len(batches):
            total, count = total + float(losses.double().sum()), count + losses.numel()
    sums = processes.each((total, count))
    mean: float = sum(part for part, _ in sums) / sum(part for _, part in sums)
    return mean
