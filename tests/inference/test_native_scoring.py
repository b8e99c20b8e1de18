"""Several answers scored together in the native engine: bit by bit the values of each alone, every prompt read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from native_engine import COMPILED, dense
from talking_miniatures import FAMILIES

from medchat.api import LoadOptions, Text
from medchat.inference.cpu_engine.decoder import KeyValueCache, NativeDecoder
from medchat.inference.engine import NativeLinear
from medchat.inference.quantization import replace_modules

pytest_plugins = ("talking_miniatures",)
pytestmark = [pytest.mark.torch, COMPILED]

#: What rounding activations to 24 bits may change in a value.
NEAR = 2e-4
EXAMPLES = "咳嗽怎么办？要不要去医院？" * 6
QUESTIONS = (EXAMPLES + "头痛怎么办？", EXAMPLES + "发热", "心悸怎么办？")
ANSWERS = (("A", "先休息，多喝水。", "", "A"), ("乏力",), tuple("头痛发热咳嗽心悸乏力失眠"))
Loaded = Callable[..., Any]


@pytest.fixture(scope="module")
def loaded(talkative: Callable[[str], Path]) -> Loaded:
    """Return a function from a family to its model, quantised, natively or (`exact`) by torch with the same weights."""

    @cache
    def chat(family: str, *, exact: bool = False) -> Any:
        how = {"device": "cpu", "dtype": "float32", "quantize": "int8", "engine": "native"}
        found: Any = FAMILIES[family].load(LoadOptions(talkative(family), **how))  # type: ignore[arg-type]
        if exact:
            assert sum(1 for _ in replace_modules(found.model, NativeLinear, dense)) > 4
        return found

    return chat


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return how many tokens of each sequence the engine reads, call by call, from now on."""
    seen: list[list[int]] = []
    read = NativeDecoder.read

    def counted(self: NativeDecoder, parts: Any, **how: Any) -> Any:
        seen.append([len(part.embeddings) for part in parts])
        return read(self, parts, **how)

    monkeypatch.setattr(NativeDecoder, "read", counted)
    return seen


def prompts(*questions: str) -> list[list[Text]]:
    return [[Text(question)] for question in questions]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_value_is_that_of_the_answer_alone_and_near_that_of_torch(loaded: Loaded, family: str) -> None:
    native, exact = loaded(family), loaded(family, exact=True)
    asked = prompts(*QUESTIONS)
    found = native.score_batch(asked, ANSWERS)
    alone = [
        [native.score(prompt, answer) for answer in options]
        for prompt, options in zip(asked, ANSWERS, strict=True)
    ]
    assert found == alone
    reference = exact.score_batch(asked, ANSWERS)
    for options, wanted in zip(found, reference, strict=True):
        assert len(options) == len(wanted)
        for values, others in zip(options, wanted, strict=True):
            assert values == pytest.approx(others, abs=NEAR) and values != others
    assert len({values for options in found for values in options}) == sum(map(len, ANSWERS)) - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_read_once_and_its_answers_together(
    loaded: Loaded, family: str, reads: list[list[int]]
) -> None:
    native, asked = loaded(family), prompts(*QUESTIONS[:2])
    native.score_batch(asked, [ANSWERS[0], ()])
    own = [[*native.answer_ids(answer)] for answer in ANSWERS[0]]
    assert reads == [[native.count(asked[0])], [len(ids) for ids in own if ids]]


def test_what_prompts_begin_with_alike_is_read_once(loaded: Loaded, reads: list[list[int]]) -> None:
    native, asked = loaded("llama"), prompts(*QUESTIONS[:2])
    native.score_batch(asked, [("",), ("",)])
    assert reads[0] == [native.count(asked[0])] and reads[1][0] < native.count(asked[1]) / 2


def test_memory_does_not_grow_with_prompts_and_answers_which_are_taken_some_at_a_time(
    loaded: Loaded, reads: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: WeakSet[KeyValueCache] = WeakSet()
    most: list[int] = []
    begin = KeyValueCache.__init__

    def counted(self: KeyValueCache, *given: Any) -> None:
        begin(self, *given)
        alive.add(self)
        most.append(len(alive))

    monkeypatch.setattr(KeyValueCache, "__init__", counted)
    loaded("chatglm").score_batch(prompts(QUESTIONS[2]) * 30, ANSWERS[2:] * 30)
    assert len(ANSWERS[2]) > max(map(len, reads)) == 8
    assert len(most) > 30 * len(ANSWERS[2]) and max(most) <= 2 * 8 + 1
