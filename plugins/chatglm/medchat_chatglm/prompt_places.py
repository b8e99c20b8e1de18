"""Where the tokens of one prompt stand and how many of them each sees, as the native engine takes it. No torch here.

The rules are those of `position_rules`, which has them for padded batches in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medchat.plugin_kit import DataError, say
from medchat_chatglm.config_file import PositionRule, SpecialIds


@dataclass(frozen=True, slots=True, eq=False)
class PromptPlaces:
    """`positions` [2, T]: position and block position of each token; `visible` [T]: how many it sees, from the first.

    Tokens that are generated behind it stand at `position` and have the block positions from `block` + 1 on.
    """

    positions: NDArray[np.int64]
    visible: NDArray[np.int64]
    position: int
    block: int


def prompt_places(
    ids: Sequence[int], special: SpecialIds, rule: PositionRule, prompt_tokens: int | None = None
) -> PromptPlaces:
    """Return the places of `ids`; those behind the first `prompt_tokens` are as if they had been generated.

    Raises DataError for a prompt without a mask token and `<sop>`.
    """
    length = len(ids)
    end = length if prompt_tokens is None else prompt_tokens
    sop, mask, is_gmask = _landmarks(list(ids), special, rule)
    columns = np.arange(length)
    held = columns >= sop
    if rule in (PositionRule.MED_DEMO, PositionRule.UPSTREAM_V0) and is_gmask:
        # The old serving code continued to count up to the prompt's end.
        held &= columns >= end
    positions = np.stack((np.where(held, mask, columns), (columns - sop + 1).clip(min=0)))
    visible = np.maximum(columns + 1, min(_bidirectional_end(rule, sop, mask, end), length))
    return PromptPlaces(positions, visible, mask, length - sop)


def _landmarks(ids: list[int], special: SpecialIds, rule: PositionRule) -> tuple[int, int, bool]:
    """Return where `<sop>` and the mask token are, and whether that is [gMASK]."""
    sop = ids.index(special.sop) if special.sop in ids else 0
    before = ids[:sop]
    wanted = (special.gmask, special.mask) if rule is PositionRule.V11 else (special.mask, special.gmask)
    for token in wanted:
        if token in before:
            return sop, before.index(token), token == special.gmask
    raise without_landmarks()


def _bidirectional_end(rule: PositionRule, sop: int, mask: int, end: int) -> int:
    """Return one past the last token that every one sees."""
    if rule is PositionRule.V11:
        return sop
    # The original writes `mask[..., :m - 1]`: for m = 0 the slice runs to the last column but one.
    return end - 1 if rule is PositionRule.UPSTREAM_V0 or mask == 0 else mask - 1


def without_landmarks() -> DataError:
    """Return the error for a prompt that has no positions."""
    return DataError(
        say(
            "提示词中缺少 [gMASK]（或 [MASK]）与其后的 <sop>，ChatGLM 无法计算位置",
            "the prompt lacks [gMASK] (or [MASK]) followed by <sop>, so ChatGLM has no positions for it",
        ),
        say(
            "用分词器编码提示词时请加上特殊标记，或自行传入 position_ids 与 attention_mask",
            "encode prompts with their special tokens, or pass position_ids and attention_mask",
        ),
    )
