"""Training batches of causal language models: one row an example, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medchat.torchside.sft.features import Feature
from medchat.torchside.sft.label_loss import NO_LABEL


@dataclass(frozen=True, slots=True)
class CausalCollator:
    """Labels stand on the answer and its end token, and nowhere else. Padding is neither seen nor learned."""

    pad_id: int

    def __call__(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `labels`, all [B, T], in the order of the features."""
        longest = max(feature.length for feature in features)
        shape = (len(features), longest)
        ids = torch.full(shape, self.pad_id)
        mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, NO_LABEL)
        for row, feature in enumerate(features):
            begin, end = len(feature.prompt_ids), feature.length
            ids[row, :end] = torch.tensor((*feature.prompt_ids, *feature.answer_ids))
            mask[row, :end] = 1
            labels[row, begin:end] = ids[row, begin:end]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
