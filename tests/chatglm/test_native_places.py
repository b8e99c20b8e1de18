"""What the native engine gets of a prompt without torch is what `position_rules` and `rotary` have for it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from medchat_chatglm import position_rules
from medchat_chatglm.config_file import PositionRule, SpecialIds
from medchat_chatglm.native import chatglm_turns
from medchat_chatglm.prompt_places import prompt_places
from medchat_chatglm.rotary import inverse_frequencies, turn_table

from medchat.errors import DataError

pytestmark = pytest.mark.torch

SPECIAL = SpecialIds(mask=1, gmask=2, sop=3)


def prompts(count: int) -> list[list[int]]:
    """Return prompts with [MASK], [gMASK] or both, once or twice, before `<sop>`, and perhaps one more behind it."""
    draw = random.Random(5)
    made = []
    for _ in range(count):
        text = [draw.randrange(4, 9) for _ in range(draw.randrange(7))]
        for _ in range(draw.randrange(1, 4)):
            text.insert(draw.randrange(len(text) + 1), draw.choice((SPECIAL.mask, SPECIAL.gmask)))
        made.append([*text, SPECIAL.sop, *(draw.randrange(1, 9) for _ in range(draw.randrange(4)))])
    return made


@pytest.mark.parametrize("rule", PositionRule)
@pytest.mark.parametrize("answered", [False, True])
def test_positions_and_visible_tokens_are_those_of_the_rules(rule: PositionRule, answered: bool) -> None:
    for ids in prompts(60):
        end = ids.index(SPECIAL.sop) + 1 if answered else len(ids)
        found = prompt_places(ids, SPECIAL, rule, end if answered else None)
        marks = position_rules.find_landmarks(torch.tensor([ids]), SPECIAL, rule)
        marks = replace(marks, end=torch.full_like(marks.end, end))
        visible = position_rules.prompt_visible(marks, rule, len(ids))[0, 0]
        positions = position_rules.prompt_positions(marks, rule, len(ids))[0]
        # Every token sees those at the beginning, and how many says it all.
        assert torch.equal(visible, torch.arange(len(ids)) < torch.from_numpy(found.visible)[:, None]), ids
        assert positions.tolist() == found.positions.tolist(), ids
        following = position_rules.step_positions(marks, len(ids) + 1)[0, :, 0]
        assert following.tolist() == [found.position, found.block + 1], ids


@pytest.mark.parametrize("ids", [[4, 5], [4, SPECIAL.sop], [SPECIAL.sop, SPECIAL.gmask], [SPECIAL.mask, 4]])
@pytest.mark.parametrize("rule", PositionRule)
def test_a_prompt_without_landmarks_has_no_places(ids: list[int], rule: PositionRule) -> None:
    with pytest.raises(DataError, match=r"\[gMASK\]"):
        prompt_places(ids, SPECIAL, rule)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("half_width", [4, 16, 64])
def test_cosines_and_sines_are_those_of_the_model(half_width: int, half: bool) -> None:
    positions = np.stack((np.arange(2048), np.arange(2048)[::-1]))
    table = turn_table(
        torch.from_numpy(positions.copy()).T, half_width, torch.float16 if half else torch.float32
    )
    rounding = 2.0**-11 if half else 2.0**-23
    for ours, models in zip(chatglm_turns(half_width, half, positions), table, strict=True):
        assert np.abs(ours - models.flatten(1).float().numpy()).max() <= rounding
    # At position 1 the angles are the frequencies, which are those of float16 exactly.
    sines = chatglm_turns(half_width, False, np.ones((2, 1), np.int64))[1][0, : half_width // 2]
    assert np.array_equal(sines, np.sin(inverse_frequencies(half_width).float().numpy()))
