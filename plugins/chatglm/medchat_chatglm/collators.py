"""Collators from token ids to training batches: the two originals, and ours.

The originals: docs/specs/training.md, "ChatGLM batches". All batches fit
`ChatGLMForConditionalGeneration.forward`; masks are True = visible (see `position_rules`). Labels are at the
token itself, -100 if it is not learned; the model shifts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medchat.plugin_kit import DataError, say
from medchat_chatglm import position_rules
from medchat_chatglm.config_file import PositionRule
from medchat_chatglm.configuration import ChatGLMConfig

#: The label the loss ignores.
IGNORED = -100
#: The mask token and `<sop>`, which end every prompt.
_PROMPT_SPECIALS = 2

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One prompt with its answer: `ids` = prompt (… [gMASK] `<sop>`) + answer + end token."""

    ids: tuple[int, ...]
    prompt_length: int

    def __post_init__(self) -> None:
        if not _PROMPT_SPECIALS <= self.prompt_length < len(self.ids):
            raise DataError(
                say(
                    f"训练样本没有可学习的回答：共 {len(self.ids)} 个词元，提示词占 {self.prompt_length} 个",
                    f"the sample has no answer: {len(self.ids)} tokens, {self.prompt_length} of prompt",
                ),
                say("请检查数据，或调高 --max-length", "check the data, or raise --max-length"),
            )


def _right_padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _landmarks_at(masks: Sequence[int], sops: Sequence[int], ends: Sequence[int]) -> position_rules.Landmarks:
    mask = torch.tensor(masks)
    return position_rules.Landmarks(
        mask,
        torch.tensor(sops),
        start=torch.zeros_like(mask),
        end=torch.tensor(ends),
        is_gmask=torch.ones_like(mask, dtype=torch.bool),
    )


class MedCollator:
    """The batches ChatGLM-6B-Med was trained on, quirks included.

    Longest first; padded with the end token to one more than the longest; `<sop>` is a target, and so is a
    second end token. The mask token is assumed to be just before the prompt's last token.
    """

    def __init__(self, end_id: int) -> None:
        self.end_id = end_id

    def __call__(self, samples: Sequence[TrainingSample]) -> Batch:
        """Return `input_ids`, `labels` [B, T], `position_ids` [B, 2, T], `attention_mask` [B, 1, T, T]."""
        ordered = sorted(samples, key=lambda sample: -len(sample.ids))
        length = len(ordered[0].ids) + 1
        labels = [
            [*[IGNORED] * (sample.prompt_length - 1), *sample.ids[sample.prompt_length - 1 :], self.end_id]
            for sample in ordered
        ]
        sops = [sample.prompt_length - 1 for sample in ordered]
        marks = _landmarks_at([sop - 1 for sop in sops], sops, [length] * len(sops))
        return {
            "input_ids": _right_padded([sample.ids for sample in ordered], length, self.end_id),
            "labels": _right_padded(labels, length, IGNORED),
            "position_ids": position_rules.prompt_positions(marks, PositionRule.MED, length),
            "attention_mask": position_rules.prompt_visible(marks, PositionRule.MED, length),
        }


@dataclass(frozen=True, slots=True)
class OfficialCollator:
    """The preprocessing of the official fine-tuning and P-tuning scripts (v1.1).

    Every row has `max_prompt` + `max_answer` tokens; `<sop>` is a target. No mask and no positions: the model
    computes them, padding included.
    """

    config: ChatGLMConfig
    max_prompt: int
    max_answer: int

    def __call__(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
        """Return `input_ids` and `labels` [B, T] of (prompt, answer) ids without special tokens."""
        config = self.config
        assert config.gmask_token_id is not None
        assert config.bos_token_id is not None and config.eos_token_id is not None
        rows, labels = [], []
        for prompt, answer in pairs:
            text = list(prompt[: self.max_prompt - 1])
            kept = answer[: self.max_answer - _PROMPT_SPECIALS]
            target = [config.bos_token_id, *kept, config.eos_token_id]
            rows.append([*text, config.gmask_token_id, *target])
            labels.append([*[IGNORED] * (len(text) + 1), *target])
        length = self.max_prompt + self.max_answer
        return {
            "input_ids": _right_padded(rows, length, config.pad_token_id or 0),
            "labels": _right_padded(labels, length, IGNORED),
        }


class AnswerCollator:
    """Our own: the model is trained on exactly what it does in chat.

    Labels on the answer and its end token only (`<sop>` is given, never generated). Positions and masks are
    those of the configured rule in chat, so that an answer token attends to the same tokens in training as in
    decoding. Right-padded to the longest; padding is neither attended to nor learned.
    """

    def __init__(self, config: ChatGLMConfig, pad_to_multiple_of: int = 1) -> None:
        self.config = config
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, samples: Sequence[TrainingSample]) -> Batch:
        """Return `input_ids`, `labels` [B, T], `position_ids` [B, 2, T], `attention_mask` bool [B, 1, T, T].

        Raises DataError for a prompt without mask token and `<sop>`.
        """
        rule, multiple = self.config.rule, self.pad_to_multiple_of
        length = -(-max(len(sample.ids) for sample in samples) // multiple) * multiple
        ids = _right_padded([sample.ids for sample in samples], length, self.config.pad_token_id or 0)
        columns = torch.arange(length)
        real = columns < torch.tensor([[len(sample.ids)] for sample in samples])
        prompt_lengths = torch.tensor([sample.prompt_length for sample in samples])
        in_prompt = columns < prompt_lengths.unsqueeze(-1)
        marks = position_rules.find_landmarks(ids, self.config.special_ids, rule, in_prompt)
        return {
            "input_ids": ids,
            "labels": torch.where(real & ~in_prompt, ids, IGNORED),
            "position_ids": position_rules.prompt_positions(marks, rule, length),
            "attention_mask": position_rules.prompt_visible(marks, rule, length, real),
        }
