"""Answers that are streamed together are, token for token, what each is alone; one that ends leaves the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from native_engine import COMPILED
from talking_miniatures import FAMILIES

from medchat.api import BatchStreamingModel, Delta, Finish, GenerationConfig, LoadOptions, Text
from medchat.errors import UsageError
from medchat.inference.adapters import prefix_tuning

pytest_plugins = ("talking_miniatures",)
pytestmark = pytest.mark.torch

GREEDY = GenerationConfig(max_new_tokens=30, greedy=True)
#: Of several lengths, so that a wrong padding or position shows; with settings of their own.
ASKED = [
    ("头痛怎么办？", GREEDY),
    ("咳嗽三天了要不要去医院？" * 5, GenerationConfig(max_new_tokens=24, temperature=1.5, seed=3)),
    ("发热", GenerationConfig(max_new_tokens=9, top_k=5, repetition_penalty=1.3, seed=4)),
    ("心悸，乏力，失眠" * 3, GenerationConfig(max_new_tokens=30, temperature=1.2, seed=5)),
]
JOINING = [
    pytest.param("llama", "torch"),
    pytest.param("bloom", "torch", marks=pytest.mark.slow),
    pytest.param("llama", "native", marks=COMPILED),
    pytest.param("bloom", "native", marks=[COMPILED, pytest.mark.slow]),
    pytest.param("chatglm", "native", marks=COMPILED),
]
Loaded = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def loaded(talkative: Callable[[str], Path]) -> Loaded:
    """Return a function from family and engine to the talkative model; "half" is torch in bfloat16."""

    @cache
    def chat(family: str, engine: str) -> Any:
        how: dict[str, Any] = {"dtype": "bfloat16" if engine == "half" else "float32"}
        if engine == "native":
            how |= {"quantize": "int8", "engine": "native"}
        return FAMILIES[family].load(LoadOptions(talkative(family), device="cpu", **how))

    return chat


@dataclass
class Reading:
    """An answer in a batch, as far as it has been read."""

    deltas: Iterator[Delta]
    cancel: threading.Event
    read: list[Delta] = field(default_factory=list)

    def more(self) -> None:
        """Read the next piece, if there is one."""
        if self.goes_on:
            self.read.append(next(self.deltas))

    @property
    def goes_on(self) -> bool:
        return not self.read or self.read[-1].finish is None

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.read)

    @property
    def outcome(self) -> tuple[str, Finish | None, int, int]:
        last = self.read[-1]
        return self.text, last.finish, last.prompt_tokens, last.completion_tokens


def begin(chat: Any, question: str, config: GenerationConfig) -> Reading:
    cancel = threading.Event()
    return Reading(chat.stream_in_batch([Text(question)], config, cancel), cancel)


def read_in_turn(going: list[Reading]) -> None:
    """Read all to their ends, a piece of each at a time."""
    while going := [reading for reading in going if reading.goes_on]:
        for reading in going:
            reading.more()


def alone(chat: Any, question: str, config: GenerationConfig) -> Reading:
    reading = Reading(chat.stream([Text(question)], config, threading.Event()), threading.Event())
    read_in_turn([reading])
    return reading


@pytest.mark.parametrize(("family", "engine"), JOINING)
def test_each_answer_is_that_of_the_question_alone_whenever_it_joined(
    loaded: Loaded, family: str, engine: str
) -> None:
    chat = loaded(family, engine)
    assert isinstance(chat, BatchStreamingModel) and chat.exact_in_batch
    expected = [alone(chat, question, config).outcome for question, config in ASKED]
    assert len({text for text, *_ in expected}) == len(ASKED)
    together: list[Reading] = []
    for question, config in ASKED:  # each joins three pieces after the one before
        together.append(begin(chat, question, config))
        for _ in range(3):
            for reading in together:
                reading.more()
    read_in_turn(together)
    assert [reading.outcome for reading in together] == expected


@pytest.mark.parametrize(("family", "engine"), JOINING)
def test_one_that_is_stopped_costs_no_token_more_and_leaves_the_others(
    loaded: Loaded, family: str, engine: str
) -> None:
    chat = loaded(family, engine)
    (first, config), (other, other_config) = ASKED[0], ("头痛", ASKED[3][1])
    expected = alone(chat, first, config).outcome
    stopped, left, stays = (
        begin(chat, question, how)
        for question, how in ((other, other_config), (other, GREEDY), (first, config))
    )
    for reading in (stopped, left, stays):
        reading.more()
    stopped.cancel.set()
    tokens = stopped.read[-1].completion_tokens
    left.deltas.close()  # type: ignore[attr-defined]
    read_in_turn([stays, stopped])
    assert stays.outcome == expected
    assert stopped.read[-1].finish is Finish.CANCELLED
    assert stopped.read[-1].completion_tokens == tokens


@pytest.mark.slow
def test_tokens_follow_a_trained_prefix_wherever_the_padding_is(
    talkative: Callable[[str], Path], loaded: Loaded
) -> None:
    chat = FAMILIES["llama"].load(LoadOptions(talkative("llama"), device="cpu", dtype="float32"))
    prefix_tuning.insert_prefix(chat.model, 3)  # type: ignore[attr-defined]
    torch.nn.init.normal_(prefix_tuning.stored_tensors(chat.model)["prompt_embeddings"])  # type: ignore[attr-defined]
    expected = [alone(chat, question, config).outcome for question, config in ASKED]
    assert expected[0] != alone(loaded("llama", "torch"), *ASKED[0]).outcome
    together = [begin(chat, question, config) for question, config in ASKED]
    read_in_turn(together)
    assert [reading.outcome for reading in together] == expected


@pytest.mark.parametrize(
    ("family", "engine"), [pytest.param("llama", "torch", marks=pytest.mark.slow), JOINING[2]]
)
def test_a_stop_text_ends_one_of_them_and_a_following_turn_reads_only_what_is_new(
    loaded: Loaded, family: str, engine: str
) -> None:
    chat = loaded(family, engine)
    question, config = ASKED[0]
    whole = alone(chat, question, config).text
    stop = GenerationConfig(max_new_tokens=30, greedy=True, stop=(whole[4:6],))
    expected = alone(chat, question, stop).outcome
    readings = [begin(chat, *ASKED[3]), begin(chat, question, stop)]
    read_in_turn(readings)
    assert readings[1].outcome == expected and len(expected[0]) <= 4
    again = begin(chat, ASKED[3][0] + "还有", GREEDY)
    read_in_turn([again])
    assert again.read[-1].reused_tokens > 5
    assert again.outcome == alone(chat, ASKED[3][0] + "还有", GREEDY).outcome


@pytest.mark.parametrize(
    ("family", "engine"), [("llama", "half"), pytest.param("chatglm", "torch", marks=pytest.mark.slow)]
)
def test_what_would_not_be_exact_is_answered_alone(loaded: Loaded, family: str, engine: str) -> None:
    chat = loaded(family, engine)
    assert not chat.exact_in_batch
    reading = begin(chat, *ASKED[0])
    read_in_turn([reading])
    assert reading.outcome == alone(chat, *ASKED[0]).outcome


@pytest.mark.slow
def test_beams_are_searched_alone_between_the_tokens_of_the_others(loaded: Loaded) -> None:
    chat = loaded("llama", "torch")
    beams = GenerationConfig(max_new_tokens=8, num_beams=2)
    expected = [alone(chat, *ASKED[0]).outcome, alone(chat, "发热", beams).outcome]
    readings = [begin(chat, *ASKED[0]), begin(chat, "发热", beams)]
    readings[0].more()
    read_in_turn(readings)
    assert [reading.outcome for reading in readings] == expected


def test_where_the_model_fails_all_end_with_its_error_and_the_next_answer_is_right(loaded: Loaded) -> None:
    chat = loaded("llama", "torch")
    expected = alone(chat, *ASKED[0]).outcome
    readings = [begin(chat, question, config) for question, config in ASKED[:2]]
    for reading in readings:
        reading.more()

    def fail(*_: Any) -> None:
        raise RuntimeError("the device is gone")

    handle = chat.model.lm_head.register_forward_pre_hook(fail)
    for reading in readings:
        with pytest.raises(RuntimeError, match="the device is gone"):
            read_in_turn([reading])
    handle.remove()
    again = begin(chat, *ASKED[0])
    read_in_turn([again])
    assert again.outcome == expected


def test_a_prompt_that_fills_the_context_is_refused_alone(loaded: Loaded) -> None:
    chat = loaded("llama", "torch")
    expected = alone(chat, *ASKED[0]).outcome
    stays = begin(chat, *ASKED[0])
    stays.more()
    with pytest.raises(UsageError):
        begin(chat, "咳嗽" * chat.context_length, GREEDY).more()
    read_in_turn([stays])
    assert stays.outcome == expected


@pytest.mark.slow
def test_an_answer_whose_reader_is_slow_waits_for_it(loaded: Loaded) -> None:
    chat = loaded("llama", "torch")
    long = GenerationConfig(max_new_tokens=40, temperature=1.5, seed=1)
    expected = alone(chat, "头痛", long).outcome
    slow, fast = begin(chat, "头痛", long), begin(chat, "发热", replace(long, seed=2))
    slow.more()
    computed: list[int] = []
    handle = chat.model.lm_head.register_forward_hook(lambda _, __, logits: computed.append(len(logits)))
    fast.more()
    read_in_turn([fast])
    handle.remove()
    assert 2 in computed and computed[-1] == 1 and len(slow.read) < computed.count(2) < 20
    read_in_turn([slow])
    assert slow.outcome == expected
