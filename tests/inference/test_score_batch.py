"""Several answers to several prompts scored together: the values of one at a time, each prompt read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from medchat_bloom.backbone import BloomBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone

from medchat.api import Backbone, BatchScoringModel, LoadOptions, Segment, Text
from medchat.errors import UsageError

pytestmark = pytest.mark.torch

EXAMPLES = "问：哪一项是发热？\nA. 体温高\nB. 咳嗽\n答：A\n\n" * 3
QUESTIONS = (
    EXAMPLES + "头痛怎么办？",
    EXAMPLES + "咳嗽两周，痰中带血，下一步首选哪项检查？胸部 CT，还是先观察？",
    EXAMPLES + "a",
    "与前面都不同",
)
ANSWERS = (("A", "B", "C", "D"), ("先休息，多喝水。", "A", ""), ("B",), ())
FAMILIES: dict[str, Callable[[], Backbone]] = {
    "llama": LlamaBackbone,
    "bloom": BloomBackbone,
    "chatglm": ChatGLMBackbone,
}


def load(
    family: str, folder: Path, **shape: Any
) -> tuple[BatchScoringModel, Callable[[str], Sequence[Segment]]]:
    backbone = FAMILIES[family]()
    backbone.tiny(folder, corpus=[*QUESTIONS, "先休息，多喝水。ABCD"], seed=3, **shape)
    options = LoadOptions(folder, device="cpu", dtype="float32")
    model, template = backbone.load(options), backbone.template(options)
    assert isinstance(model, BatchScoringModel)
    # Random weights are small and hardly attend to anything: a wrong position would not show.
    for name, weights in model.model.named_parameters():  # type: ignore[attr-defined]
        if weights.dim() == 2 and "embed" not in name:
            weights.data *= 8
    return model, lambda question: template.render((), question)


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BatchScoringModel, Callable[[str], Sequence[Segment]]]:
    return load(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.mark.parametrize("count", [3, 4], ids=["a common beginning", "none"])
def test_each_value_is_that_of_the_answer_alone(
    loaded: tuple[BatchScoringModel, Callable[[str], Sequence[Segment]]], count: int
) -> None:
    model, prompt = loaded
    asked, answers = QUESTIONS[:count], ANSWERS[:count]
    found = model.score_batch([prompt(question) for question in asked], answers)
    for question, options, scored in zip(asked, answers, found, strict=True):
        assert len(scored) == len(options)
        for answer, values in zip(options, scored, strict=True):
            assert values == pytest.approx(model.score(prompt(question), answer), abs=1e-4, rel=1e-5)


def test_scoring_leaves_nothing_that_changes_the_next_answer(
    loaded: tuple[BatchScoringModel, Callable[[str], Sequence[Segment]]],
) -> None:
    model, prompt = loaded
    before = model.score(prompt(QUESTIONS[1]), "B")
    model.score_batch([prompt(QUESTIONS[1])], [("A", "先休息")])
    assert model.score(prompt(QUESTIONS[1]), "B") == before


def test_an_answer_that_does_not_fit_the_context_is_refused(
    loaded: tuple[BatchScoringModel, Callable[[str], Sequence[Segment]]],
) -> None:
    model, _ = loaded
    with pytest.raises(UsageError, match=str(model.context_length)):
        model.score_batch([[Text("头")]], [("A", "痛" * 3 * model.context_length)])


@pytest.mark.parametrize(("family", "passes"), [("llama", 3), ("bloom", 3), ("chatglm", 6)])
def test_a_prompt_is_read_once_however_many_answers_it_has(family: str, passes: int, tmp_path: Path) -> None:
    model, prompt = load(family, tmp_path / family)
    read: list[tuple[int, ...]] = []
    net: Any = model.model  # type: ignore[attr-defined]
    net.register_forward_pre_hook(
        lambda _, args, given: read.append(tuple((args[0] if args else given["input_ids"]).shape)),
        with_kwargs=True,
    )
    prompts = [prompt(question) for question in QUESTIONS[:3]]
    model.score_batch(prompts, [("A", "B", "C", "D", "E")] * 3)
    # The causal families read the common beginning, the rests and the answers; ChatGLM a prompt, its answers, ...
    assert len(read) == passes
    assert sum(rows * length for rows, length in read) < sum(map(model.count, prompts)) * 1.5


def test_memory_is_bounded_by_the_group_and_not_by_the_number_of_prompts(tmp_path: Path) -> None:
    model, prompt = load("llama", tmp_path / "llama")
    rows: list[int] = []
    model.model.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda _, args, given: rows.append(given["input_ids"].numel()), with_kwargs=True
    )
    model.score_batch([prompt(QUESTIONS[0])] * 80, [("A", "B")] * 80)
    assert len(rows) == 5 * 3 and max(rows) <= 16 * model.count(prompt(QUESTIONS[0]))
