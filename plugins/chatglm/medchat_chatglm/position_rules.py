"""Positions and masks from token ids, for every rule ChatGLM-6B was trained or served with.

The rules: docs/specs/models.md, "Position rules".

Pure functions of tensors. **Mask convention, here and everywhere in this plugin: bool, True = visible**
(query row, key column), as torch's attention takes it; the original code and its goldens use the
opposite, True = hidden. A 2-D `attention_mask` [B, T] is the usual one: 1 for tokens, 0 for padding.

Positions are [B, 2, T]: row 0 the position, row 1 the block position (0 before `<sop>`, then 1, 2, ...).
In padded batches every number is relative to the row without its padding, so a row gives the same
logits as it does alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medchat_chatglm.config_file import PositionRule, SpecialIds
from medchat_chatglm.prompt_places import without_landmarks


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The positions of the prompt's special tokens: int64 [B] each, counted from the start of the padded row.

    `mask` is the effective mask token, `sop` the first `<sop>`, `start` the first token that is not left
    padding, `end` one past the prompt's last token (what follows was generated). `is_gmask` is bool [B].
    """

    mask: Tensor
    sop: Tensor
    start: Tensor
    end: Tensor
    is_gmask: Tensor

    def at_last_token(self) -> Tensor:
        """Return [B], the position (row 0) of every generated token: that of the mask token."""
        return self.mask - self.start


def _first(found: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the first True of each row, and whether there is one."""
    return found.int().argmax(-1), found.any(-1)


def find_landmarks(
    ids: Tensor,
    special: SpecialIds,
    rule: PositionRule,
    attention_mask: Tensor | None = None,
    *,
    checked: bool = True,
) -> Landmarks:
    """Find the special tokens of `ids` [B, T].

    The mask token is looked up before the first `<sop>` only, so that a model which writes one cannot move
    its own positions. v1.1 prefers [gMASK] to [MASK], v0 the reverse. `checked` raises DataError for a row
    lacking either; it synchronises with the device, so omit it while decoding.
    """
    length = ids.shape[-1]
    columns = torch.arange(length, device=ids.device)
    if attention_mask is None:
        real = torch.ones_like(ids, dtype=torch.bool)
        end = torch.full_like(ids[:, 0], length)
    else:
        real = attention_mask[:, :length].bool()
        end = torch.where(real, columns + 1, 0).amax(-1)
    sop, has_sop = _first((ids == special.sop) & real)
    before = real & (columns < sop.unsqueeze(-1))
    gmask, has_gmask = _first((ids == special.gmask) & before)
    mask, has_mask = _first((ids == special.mask) & before)
    is_gmask = has_gmask if rule is PositionRule.V11 else has_gmask & ~has_mask
    if checked and not bool((has_sop & (has_gmask | has_mask)).all()):
        raise without_landmarks()
    start, _ = _first(real)
    return Landmarks(torch.where(is_gmask, gmask, mask), sop, start, end, is_gmask)


def prompt_positions(landmarks: Landmarks, rule: PositionRule, length: int) -> Tensor:
    """Return positions [B, 2, length] for prompts; padding to the left gets 0.

    Tokens after `landmarks.end` count as generated. Under the two v0 rules that copy the old serving
    code, a [gMASK] prompt keeps counting at `<sop>` instead of falling back to the mask token.
    """
    columns = torch.arange(length, device=landmarks.mask.device)
    position = (columns - landmarks.start.unsqueeze(-1)).clamp(min=0)
    block = (columns - landmarks.sop.unsqueeze(-1) + 1).clamp(min=0)
    held = columns >= landmarks.sop.unsqueeze(-1)
    if rule in (PositionRule.MED_DEMO, PositionRule.UPSTREAM_V0):
        in_prompt = columns < landmarks.end.unsqueeze(-1)
        held = held & ~(landmarks.is_gmask.unsqueeze(-1) & in_prompt)
    position = torch.where(held, landmarks.at_last_token().unsqueeze(-1), position)
    return torch.stack((position, block), dim=1)


def step_positions(landmarks: Landmarks, length: int) -> Tensor:
    """Return positions [B, 2, 1] for one generated token, after which the (padded) rows are `length` long."""
    return torch.stack((landmarks.at_last_token(), length - landmarks.sop), dim=1).unsqueeze(-1)


def _bidirectional_end(landmarks: Landmarks, rule: PositionRule, direct: bool) -> Tensor:
    """Return [B] one past the last column that every row sees."""
    old_serving_code = rule in (PositionRule.MED_DEMO, PositionRule.UPSTREAM_V0)
    if rule is PositionRule.V11 or (direct and old_serving_code):
        return landmarks.sop
    if rule is PositionRule.UPSTREAM_V0:
        return landmarks.end - 1
    # The original writes `mask[..., :m - 1]`: for m = 0 the slice runs to the last column but one.
    return torch.where(landmarks.mask > landmarks.start, landmarks.mask - 1, landmarks.end - 1)


def prompt_visible(
    landmarks: Landmarks,
    rule: PositionRule,
    length: int,
    attention_mask: Tensor | None = None,
    *,
    direct: bool = False,
) -> Tensor:
    """Return the mask bool [B, 1, length, length], True = visible, of a prompt.

    Every row sees the text; the rest is causal; the rule determines where the text ends. `direct` is the mask
    of the old serving code outside generation (its plain forward), which shows one column more than its
    prefill. Padding rows and columns are hidden.
    """
    columns = torch.arange(length, device=landmarks.mask.device)
    text = columns < _bidirectional_end(landmarks, rule, direct).view(-1, 1, 1)
    visible = text | (columns <= columns.unsqueeze(-1))
    if attention_mask is not None:
        real = attention_mask.bool()
        visible = visible & real.unsqueeze(-1) & real.unsqueeze(-2)
    return visible.unsqueeze(1)


def fit_to_keys(
    visible: Tensor | None, queries: int, filled: int, keys: int, device: torch.device
) -> Tensor | None:
    """Return a mask for exactly the `keys` of an attention call.

    `filled` of them hold something; the rest are free slots of a static cache and hidden. `visible` is None
    (all cached, then causal), [B, W] (1 = token) or bool [B, 1, queries, W]; W < `filled` omits the first
    columns, such as a P-tuning prefix, which every row sees. Returns bool [B or 1, 1, queries or 1, keys], or
    None if nothing is hidden. Rows that would see nothing (padding) see everything, so that their softmax is
    defined; it is not used.
    """
    if visible is None and queries == 1 and keys == filled:
        return None
    columns = torch.arange(keys, device=device)
    rows = torch.arange(filled - queries, filled, device=device).unsqueeze(-1)
    causal = (columns <= rows)[None, None]
    if visible is None:
        return causal
    if visible.dim() == 2:
        visible = visible[:, None, None, :]
    else:
        causal = (columns < filled)[None, None, None]
    visible = functional.pad(visible.bool(), (filled - visible.shape[-1], 0), value=True)
    visible = functional.pad(visible, (0, keys - filled), value=False) & causal
    return visible | ~visible.any(-1, keepdim=True) & (columns < filled)
