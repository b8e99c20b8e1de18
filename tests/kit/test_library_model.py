"""A library that chooses tokens itself, behind `LibraryModel`: the properties of the kit, and what they leave open."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from byte_backbone import BEGIN, END, ByteModel, Bytes

from medchat.api import Control, Finish, GenerationConfig, Text
from medchat.errors import UsageError
from medchat.testing import BackboneTests

GREEDY = GenerationConfig(greedy=True, max_new_tokens=12)


class TestBytes(BackboneTests):
    backbone = Bytes()


@pytest.fixture
def model(tmp_path: Path) -> ByteModel:
    return ByteModel(tmp_path)


def test_a_prompt_begins_once_with_what_the_vocabulary_puts_in_front(model: ByteModel) -> None:
    assert model.prompt_ids([Text("a")]) == [BEGIN, 97]
    assert model.prompt_ids([Control("<begin>"), Text("a")]) == [BEGIN, 97]
    assert model.prompt_parts([Text("a")]) == [Control("<begin>"), Text("a")]


def test_an_answer_that_goes_on_is_the_one_that_was_cut_off(model: ByteModel) -> None:
    prompt, never = [Text("How long")], threading.Event()
    whole = "".join(delta.text for delta in model.stream(prompt, GREEDY, never))
    for cut in range(1, len(whole)):
        config = GenerationConfig(greedy=True, max_new_tokens=12 - len(whole[:cut].encode()))
        rest = list(model.go_on(prompt, whole[:cut], config, never))
        assert whole[:cut] + "".join(delta.text for delta in rest) == whole
        assert rest[-1].prompt_tokens == model.count(prompt) + len(whole[:cut].encode())


def test_a_library_that_ends_by_itself_ends_the_answer(
    model: ByteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "tokens", lambda ids, config: (token for token in b"ab"))
    *_, last = model.stream([Text("?")], GREEDY, threading.Event())
    assert (last.finish, last.completion_tokens) == (Finish.STOP, 2)


def test_the_library_is_left_where_an_answer_ends(model: ByteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def tokens(ids: object, config: object):  # type: ignore[no-untyped-def]
        try:
            while True:
                yield 97
        finally:
            left.append(True)

    monkeypatch.setattr(model, "tokens", tokens)
    for config in (GREEDY, GenerationConfig(stop=("aa",))):
        list(model.stream([Text("?")], config, threading.Event()))
    answer = model.stream([Text("?")], GREEDY, threading.Event())
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert len(left) == 3


def test_a_score_is_of_each_token_and_of_the_end(model: ByteModel) -> None:
    assert len(model.score([Text("?")], "多")) == len("多".encode()) + 1
    with pytest.raises(UsageError):
        model.score([Text("a" * 500)], "b" * 20)
    assert END in model.stop_ids
