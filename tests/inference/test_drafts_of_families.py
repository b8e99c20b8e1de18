"""Every family that the native engine computes verifies drafts: its answers are the same with and without."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from native_engine import COMPILED
from talking_miniatures import FAMILIES

from medchat.api import Delta, GenerationConfig, LoadOptions, Text
from medchat.inference import prompt_lookup

pytest_plugins = ("talking_miniatures",)
pytestmark = [pytest.mark.torch, COMPILED]

QUESTION = [Text("头痛怎么办？要不要去医院？头痛怎么办？要不要")]
WAYS: list[dict[str, Any]] = [
    {"greedy": True},
    {"seed": 3, "temperature": 1.5, "top_p": 0.98},
    {"seed": 5, "temperature": 1.2, "repetition_penalty": 1.2, "top_k": 50},
]


class Foreseen:
    """In place of the lookup: notes what is written while nothing is known, and drafts it when it is written again."""

    def __init__(self) -> None:
        self.written: dict[int, list[int]] = {}
        self.known: list[list[int]] = []

    def draft(self, index: prompt_lookup.TokenIndex, most: int) -> list[int]:
        self.written[id(index.ids)] = index.ids
        length = len(index.ids)
        for ids in self.known:
            if ids[:length] == index.ids:
                found = ids[length:][:most]
                if length % 2 and len(found) > 2:  # every second draft has a wrong token in it
                    found[2] += 1
                return found
        return []


@pytest.mark.parametrize("family", ["chatglm", "llama", pytest.param("bloom", marks=pytest.mark.slow)])
def test_answers_are_the_same_with_drafts_and_without(
    talkative: Callable[[str], Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LoadOptions(talkative(family), device="cpu", quantize="int8", engine="native", dtype="bfloat16")
    chat: Any = FAMILIES[family].load(options)

    def answers(speculate: str) -> list[list[Delta]]:
        found = []
        for way in WAYS:
            config = GenerationConfig(max_new_tokens=24, speculate=speculate, **way)
            chat.stepper.forget()  # how much is reused is part of the last delta
            found.append(list(chat.stream(QUESTION, config, threading.Event())))
            chat.stepper.forget()
            found.append(list(chat.go_on(QUESTION, "多休息", config, threading.Event())))
        return found

    foreseen = Foreseen()
    monkeypatch.setattr(prompt_lookup.TokenIndex, "draft", lambda index, most, _: foreseen.draft(index, most))
    monkeypatch.setattr(prompt_lookup.Speculation, "pays", lambda _: True)
    plain = answers("off")
    assert not foreseen.written
    assert answers("auto") == plain
    assert len({str(answer) for answer in plain}) == len(plain)
    assert chat.describe()["drafted_tokens"] == 0
    foreseen.known = list(foreseen.written.values())
    assert answers("auto") == plain
    assert 10 < chat.speculation.accepted < chat.speculation.drafted
    assert chat.describe()["accepted_tokens"] == chat.speculation.accepted
