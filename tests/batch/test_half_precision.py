"""Half precision: an answer in a batch is the one alone wherever rounding cannot turn a choice.

What rounding does is measured without any batch: against the same weights computed in float32. Where the
best token leads the second by more than both can be wrong, padding and neighbours must not change it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_program import without_seconds
from talking_miniatures import BODY, FAMILIES, Talkative, infer, load

import medchat.inference.generate as batch
from medchat.api import GenerationConfig, LoadOptions
from medchat.inference.generate import generate_rows

pytest_plugins = ("talking_miniatures",)
# What runs is rounding: every line is run by the tests in single precision too.
pytestmark = [pytest.mark.torch, pytest.mark.no_cover]

GREEDY = GenerationConfig(greedy=True, max_new_tokens=8)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
ROWS = 16
#: Huozi is computed by Bloom's model: with the slow tests.
KINDS = [
    pytest.param((family, dtype), id=f"{family}-{dtype}", marks=[pytest.mark.slow] * (family == "huozi"))
    for family in FAMILIES
    for dtype in DTYPES
]


@dataclass(frozen=True)
class Case:
    """A miniature, its prompts, the greedy answer of each alone, and how sure each of its tokens is.

    `sure` says for each prompt and place of its answer, its end included, whether the best token leads
    the second, in float32, by more than twice the largest error of any logit there: two logits, each
    wrong by no more than that, cannot change places.
    """

    folder: Path
    dtype: str
    questions: list[str]
    prompts: list[list[int]]
    model: Any
    alone: list[tuple[int, ...]]
    sure: list[list[bool]]

    def together(self) -> list[tuple[int, ...]]:
        """The answers of batches of `ROWS`, short prompts among long ones."""
        limits, answers = self.model.limits, []
        for start in range(0, len(self.prompts), ROWS):
            answers += generate_rows(self.model.model, self.prompts[start : start + ROWS], GREEDY, limits)
        return [answer.tokens for answer in answers]

    def turned(self) -> list[bool]:
        """For each answer that differs in a batch: whether the first token that does was a sure one."""
        turned = []
        for one, other, sure in zip(self.alone, self.together(), self.sure, strict=True):
            if one != other:
                differs = [a != b for a, b in zip(one, other, strict=False)]
                turned.append(sure[differs.index(True) if True in differs else len(differs)])
        return turned


def questions() -> list[str]:
    luck = random.Random(11)
    return ["，".join(luck.choices(BODY, k=luck.randint(1, 9))) + "怎么办？" for _ in range(32)]


def logits(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Return what the model thinks at each place of the answer and behind it [T + 1, V]."""
    with torch.inference_mode():
        found = model.logits_of_answer(prompt, [*answer, model.tokenizer.eos_token_id])
    return found.float()[:, : model.limits.token_count]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, talkative: Talkative) -> Case:
    family, dtype = request.param
    backbone, folder = FAMILIES[family], talkative(family, DTYPES[dtype])
    half, full = load(backbone, folder, dtype), load(backbone, folder)
    template = backbone.template(LoadOptions(folder))
    asked = questions()
    prompts = [half.tokenizer.build_prompt(template.render((), question)) for question in asked]
    alone = [generate_rows(half.model, [prompt], GREEDY, half.limits)[0].tokens for prompt in prompts]
    sure = []
    for prompt, answer in zip(prompts, alone, strict=True):
        exact = logits(full, prompt, answer)
        rounding = (logits(half, prompt, answer) - exact).abs().amax(-1)
        best = exact.topk(2).values
        sure.append((best[:, 0] - best[:, 1] > 2 * rounding)[: GREEDY.max_new_tokens].tolist())
    full.close()
    return Case(folder, dtype, asked, prompts, half, alone, sure)


def test_a_token_that_leads_by_more_than_the_rounding_is_chosen_in_every_batch(case: Case) -> None:
    assert not any(case.turned())
    # The claim is about something: many tokens lead by more.
    assert sum(map(sum, case.sure)) > sum(map(len, case.sure)) / 3


def test_padding_that_is_seen_turns_tokens_that_lead_by_more(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    pad = batch.pad_left

    def unmasked(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad(*arguments)
        return ids, torch.ones_like(mask)

    monkeypatch.setattr(batch, "pad_left", unmasked)
    assert any(case.turned())


@pytest.mark.parametrize("beams", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_program_answers_alike_in_every_batch_size(case: Case, tmp_path: Path, beams: int) -> None:
    # Beams are searched for one question at a time, so that no rounding can differ, and few questions show it.
    places = case.sure if beams == 1 else case.sure[:6]
    data = tmp_path / "questions.json"
    data.write_text(json.dumps(case.questions[: len(places)]), encoding="utf-8")
    tokens = 3  # few, so that many answers have no token that rounding could turn
    flags = ["--max-new-tokens", str(tokens), "--num-beams", str(beams), "--repetition-penalty", "1"]
    alone, together = (
        infer(case.folder, data, tmp_path / size, *flags, "--batch-size", size, dtype=case.dtype)
        for size in ("1", str(ROWS))
    )
    assert {line["dtype"] for line in alone} == {case.dtype}
    compared = [beams > 1 or all(certain[:tokens]) for certain in places]
    assert sum(compared) > len(alone) / 5
    for certain, one, other in zip(compared, *map(without_seconds, (alone, together)), strict=True):
        assert one == other or not certain
