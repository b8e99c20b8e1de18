"""ChatGLM position and mask rules: properties, and a slow second writing of the rules.

The rules: docs/specs/models.md, "Position rules".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medchat_chatglm import position_rules
from medchat_chatglm.collators import IGNORED, AnswerCollator, MedCollator, OfficialCollator, TrainingSample
from medchat_chatglm.config_file import PositionRule, SpecialIds
from medchat_chatglm.configuration import ChatGLMConfig
from medchat_chatglm.rotary import table_precision, turn, turn_table
from torch import Tensor

from medchat.errors import CheckpointError, DataError

pytestmark = pytest.mark.torch

IDS = SpecialIds(mask=90, gmask=91, sop=94)
TEXT = st.lists(st.integers(5, 80), max_size=9)


@st.composite
def prompts(draw: st.DrawFn) -> list[int]:
    """Text, one or both mask tokens, more text, `<sop>`, and perhaps the start of an answer."""
    masks = draw(st.sampled_from([[IDS.mask], [IDS.gmask], [IDS.mask, IDS.gmask], [IDS.gmask, IDS.mask]]))
    return [*draw(TEXT), *masks, *draw(TEXT), IDS.sop, *draw(st.lists(st.integers(5, 80), max_size=4))]


def slow_positions(row: list[int], rule: PositionRule) -> tuple[list[int], list[int], int]:
    """The rules read line by line: both position rows of a prompt, and the mask token's index."""
    sop = row.index(IDS.sop)
    preferred = [IDS.gmask, IDS.mask] if rule is PositionRule.V11 else [IDS.mask, IDS.gmask]
    chosen = next(token for token in preferred if token in row[:sop])
    mask = row.index(chosen)
    keeps_counting = rule in ("med_demo", "upstream_v0") and chosen == IDS.gmask
    first = [j if j < sop or keeps_counting else mask for j in range(len(row))]
    return first, [max(0, j - sop + 1) for j in range(len(row))], mask


def slow_visible(row: list[int], rule: PositionRule) -> list[list[bool]]:
    _, _, mask = slow_positions(row, rule)
    columns = list(range(len(row)))
    text = {
        PositionRule.V11: columns[: row.index(IDS.sop)],
        PositionRule.UPSTREAM_V0: columns[: len(row) - 1],
        PositionRule.MED: columns[: mask - 1],
        PositionRule.MED_DEMO: columns[: mask - 1],
    }[rule]
    return [[k in text or k <= q for k in columns] for q in columns]


def made(rows: Tensor, rule: PositionRule, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    marks = position_rules.find_landmarks(rows, IDS, rule, padding)
    return (
        position_rules.prompt_positions(marks, rule, rows.shape[1]),
        position_rules.prompt_visible(marks, rule, rows.shape[1], padding),
    )


@given(row=prompts(), rule=st.sampled_from(list(PositionRule)))
def test_every_rule_equals_its_description_read_literally(row: list[int], rule: PositionRule) -> None:
    positions, visible = made(torch.tensor([row]), rule)
    first, second, _ = slow_positions(row, rule)
    assert positions[0].tolist() == [first, second]
    assert visible[0, 0].tolist() == slow_visible(row, rule)


@given(batch=st.lists(prompts(), min_size=1, max_size=4), rule=st.sampled_from(list(PositionRule)))
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_is_placed_as_it_is_alone(batch: list[list[int]], rule: PositionRule, side: str) -> None:
    length = max(map(len, batch))
    padded, padding = [], []
    for row in batch:
        pads = [3] * (length - len(row))
        padded.append([*pads, *row] if side == "left" else [*row, *pads])
        real, blank = [1] * len(row), [0] * len(pads)
        padding.append([*blank, *real] if side == "left" else [*real, *blank])
    positions, visible = made(torch.tensor(padded), rule, torch.tensor(padding))
    for number, row in enumerate(batch):
        alone_positions, alone_visible = made(torch.tensor([row]), rule)
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        assert torch.equal(positions[number, :, place], alone_positions[0])
        assert torch.equal(visible[number, 0, place, place], alone_visible[0, 0])
        real_tokens = torch.tensor(padding[number], dtype=torch.bool)
        assert not visible[number, 0][:, ~real_tokens].any(), "a padding column is visible"
        assert not visible[number, 0][~real_tokens].any(), "a padding row sees something"
        if side == "left":
            assert not positions[number, :, ~real_tokens].any()


@given(row=prompts(), written=st.lists(st.sampled_from([7, IDS.mask, IDS.gmask, IDS.sop]), max_size=4))
@pytest.mark.parametrize("rule", list(PositionRule))
def test_a_written_mask_token_moves_no_position(
    row: list[int], written: list[int], rule: PositionRule
) -> None:
    prompt = position_rules.find_landmarks(torch.tensor([row]), IDS, rule)
    longer = position_rules.find_landmarks(torch.tensor([[*row, *written]]), IDS, rule, checked=False)
    length = len(row) + len(written) + 1
    assert torch.equal(
        position_rules.step_positions(prompt, length), position_rules.step_positions(longer, length)
    )
    _, _, mask = slow_positions(row, rule)
    expected = [[mask], [length - 1 - row.index(IDS.sop) + 1]]
    assert position_rules.step_positions(prompt, length)[0].tolist() == expected


@pytest.mark.parametrize(
    "row", [[5, 6], [5, IDS.sop], [5, IDS.gmask], [IDS.sop, IDS.gmask]], ids=["text", "sop", "gmask", "late"]
)
def test_a_prompt_without_its_special_tokens_is_refused(row: list[int]) -> None:
    with pytest.raises(DataError, match=r"gMASK"):
        position_rules.find_landmarks(torch.tensor([row]), IDS, PositionRule.V11)


@given(queries=st.integers(1, 5), cached=st.integers(0, 5), prefix=st.integers(0, 3), spare=st.integers(0, 3))
def test_a_fitted_mask_covers_prefix_text_and_free_slots(
    queries: int, cached: int, prefix: int, spare: int
) -> None:
    filled = prefix + cached + queries
    padding = torch.ones(1, cached + queries)
    padding[0, : (cached + queries) // 2] = 0
    mask = position_rules.fit_to_keys(padding, queries, filled, filled + spare, torch.device("cpu"))
    assert mask is not None
    for q in range(queries):
        for k in range(filled + spare):
            token = k - prefix
            expected = k < prefix or (bool(0 <= token <= cached + q) and bool(padding[0, token]))
            row = mask[0, 0, q]
            if not prefix and not padding[0, : cached + q + 1].any():
                expected = k < filled  # a row of nothing but padding sees everything there is
            assert bool(row[k]) == expected


def test_one_decoded_token_needs_no_mask() -> None:
    assert position_rules.fit_to_keys(None, 1, 9, 9, torch.device("cpu")) is None


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("v0", "med", 150004, 150005, 150000, 150001, 0)),
        ({"vocab_size": 150528, "pad_token_id": 20003}, ("v0", "med", 150004, 150005, 150000, 150001, 20003)),
        ({"vocab_size": 130528}, ("v11", "v11", 130004, 130005, 130000, 130001, 3)),
        ({"vocab_size": 99, "bos_token_id": 94}, ("v0", "med", 94, 95, 90, 91, 0)),
        ({"vocab_size": 99, "bos_token_id": 94, "pad_token_id": 3}, ("v11", "v11", 94, 95, 90, 91, 3)),
        ({"medchat_position_rule": "upstream_v0"}, ("v0", "upstream_v0", 150004, 150005, 150000, 150001, 0)),
    ],
)
def test_missing_keys_get_the_values_of_their_generation(
    keys: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chatglm", **keys}), encoding="utf-8")
    config = ChatGLMConfig.from_pretrained(tmp_path)
    ids = (config.bos_token_id, config.eos_token_id, config.mask_token_id, config.gmask_token_id)
    assert (config.generation, str(config.rule), *ids, config.pad_token_id) == expected
    assert config.tie_word_embeddings is True
    config.save_pretrained(tmp_path)
    again = ChatGLMConfig.from_pretrained(tmp_path)
    assert (again.generation, again.rule, again.special_ids) == (
        config.generation,
        config.rule,
        config.special_ids,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"position_encoding_2d": False},
        {"quantization_bit": 3},
        {"medchat_position_rule": "v2"},
        {"rotary_precision": "bfloat16"},
        {"num_attention_heads": 31},
    ],
)
def test_values_no_released_model_has_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(wrong))):
        ChatGLMConfig(**wrong)


# ---------------------------------------------------------------- rotary


@pytest.mark.parametrize(
    ("switch", "compute", "table"),
    [
        ("auto", torch.float16, torch.float16),
        ("auto", torch.bfloat16, torch.float32),
        ("auto", torch.float32, torch.float32),
        ("float32", torch.float16, torch.float32),
        ("float16", torch.float32, torch.float16),
    ],
)
def test_the_rotary_table_follows_the_switch(switch: str, compute: torch.dtype, table: torch.dtype) -> None:
    assert table_precision(switch, compute) is table


@given(shift=st.integers(0, 900), first=st.integers(0, 900), second=st.integers(0, 900))
def test_scores_depend_on_the_distances_of_both_positions(shift: int, first: int, second: int) -> None:
    torch.manual_seed(first * 1000 + second)
    query, key = torch.randn(2, 1, 1, 16, dtype=torch.float64)

    def score(offset: int) -> float:
        places = torch.tensor([[[first + offset], [second]], [[second + offset], [first]]])
        cosine, sine = (table.transpose(1, 2) for table in turn_table(places, 8, torch.float64))
        turned = turn(torch.stack((query, key)), cosine, sine)
        return float((turned[0] * turned[1]).sum())

    assert score(shift) == pytest.approx(score(0), abs=1e-9)


# ---------------------------------------------------------------- collators


def sample(prompt: list[int], answer: list[int]) -> TrainingSample:
    return TrainingSample((*prompt, IDS.gmask, IDS.sop, *answer, 95), len(prompt) + 2)


SAMPLES = st.lists(st.builds(sample, TEXT, TEXT.filter(bool)), min_size=1, max_size=5)


def small_config(rule: str = "med") -> ChatGLMConfig:
    return ChatGLMConfig(vocab_size=99, bos_token_id=94, pad_token_id=3, medchat_position_rule=rule)


@given(samples=SAMPLES, rule=st.sampled_from(list(PositionRule)), multiple=st.sampled_from([1, 8]))
def test_only_the_answer_and_its_end_are_learned(
    samples: list[TrainingSample], rule: PositionRule, multiple: int
) -> None:
    batch = AnswerCollator(small_config(rule), multiple)(samples)
    assert batch["input_ids"].shape[1] % multiple == 0
    for row, labels, one in zip(batch["input_ids"], batch["labels"], samples, strict=True):
        assert tuple(row[: len(one.ids)].tolist()) == one.ids
        learned = [label for label in labels.tolist() if label != IGNORED]
        assert tuple(learned) == one.ids[one.prompt_length :]
        assert (labels[: one.prompt_length] == IGNORED).all()
    assert batch["attention_mask"].dtype == torch.bool


@given(samples=SAMPLES)
def test_the_med_collator_sorts_longest_first_and_learns_two_ends(samples: list[TrainingSample]) -> None:
    batch = MedCollator(end_id=95)(samples)
    lengths = sorted((len(one.ids) for one in samples), reverse=True)
    assert batch["input_ids"].shape == (len(samples), lengths[0] + 1)
    for labels, length in zip(batch["labels"], lengths, strict=True):
        learned = [label for label in labels.tolist() if label != IGNORED]
        assert learned[0] == IDS.sop
        assert learned[-2:] == [95, 95]
        assert labels[length] == 95


@given(prompt=TEXT, answer=TEXT, room=st.integers(1, 8), answer_room=st.integers(2, 8))
def test_the_official_preprocessing_cuts_text_and_keeps_special_ids(
    prompt: list[int], answer: list[int], room: int, answer_room: int
) -> None:
    batch = OfficialCollator(small_config("v11"), room, answer_room)([(prompt, answer)])
    used_prompt, used_answer = prompt[: room - 1], answer[: answer_room - 2]
    row = [*used_prompt, IDS.gmask, IDS.sop, *used_answer, 95]
    padding = room + answer_room - len(row)
    assert batch["input_ids"].tolist() == [row + [3] * padding]
    learned = [IGNORED] * (len(used_prompt) + 1) + row[len(used_prompt) + 1 :] + [IGNORED] * padding
    assert batch["labels"].tolist() == [learned]


@pytest.mark.parametrize(("ids", "prompt_length"), [((91, 94), 2), ((91,), 1), ((5, 91, 94, 7), 1)])
def test_a_sample_without_an_answer_is_refused(ids: tuple[int, ...], prompt_length: int) -> None:
    with pytest.raises(DataError, match=str(len(ids))):
        TrainingSample(ids, prompt_length)
