"""`medchat serve --save`: conversations as sessions, each in its own; without it nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_model import Served, question, serving

from medchat import paths
from medchat.plugin_kit import OpenedModel
from medchat.store import SavedTurn, SessionStore

pytest_plugins = ("served_model",)


@pytest.fixture
def saving(scripted_model: OpenedModel) -> Iterator[Served]:
    with scripted_model.saving() as saved, serving(scripted_model, saved=saved) as server:
        yield server


def sessions() -> list[tuple[SavedTurn, ...]]:
    """Return the turns of each saved session, the latest first."""
    with SessionStore.open() as store:
        return [store.turns(record.id) for record in store.list()]


def texts(turns: tuple[SavedTurn, ...]) -> list[tuple[str, str]]:
    return [(saved.turn.question, saved.turn.answer) for saved in turns]


def talk(served: Served, *asked: str) -> list[dict[str, str]]:
    """Hold a conversation as a client does that sends along what was said."""
    messages: list[dict[str, str]] = []
    for text in asked:
        messages.append({"role": "user", "content": text})
        answer = served.post({"messages": messages}).json()["choices"][0]["message"]["content"]
        messages.append({"role": "assistant", "content": answer})
    served.wait_until_idle()
    return messages


def test_each_conversation_is_one_session_whoever_comes_between(saving: Served) -> None:
    first = talk(saving, "头痛", "还有呢？")
    talk(saving, "发烧")
    saving.post({"messages": [*first, {"role": "user", "content": "谢谢"}]})
    saving.wait_until_idle()
    assert sorted(len(turns) for turns in sessions()) == [1, 3]
    assert max(map(texts, sessions()), key=len) == [
        ("头痛", "你问的是头痛"),
        ("还有呢？", "你问的是还有呢？"),
        ("谢谢", "你问的是谢谢"),
    ]


def test_what_a_client_says_was_said_before_is_kept_as_edited(saving: Served) -> None:
    body = {
        "messages": [
            {"role": "user", "content": "头痛"},
            {"role": "assistant", "content": "客户端自己的话"},
            {"role": "user", "content": "还有呢？"},
        ]
    }
    saving.post(body)
    saving.wait_until_idle()
    (turns,) = sessions()
    assert texts(turns) == [("头痛", "客户端自己的话"), ("还有呢？", "你问的是还有呢？")]
    assert [turn.origin.edited for turn in turns] == [True, False]


def test_an_answer_that_is_asked_for_again_and_one_that_failed_spoil_no_session(saving: Served) -> None:
    said = talk(saving, "头痛", "还有呢？")
    saving.post({"messages": [*said, {"role": "user", "content": "坏掉"}]})
    saving.post({"messages": said[:3]})  # the second question once more
    saving.wait_until_idle()
    assert sorted(map(texts, sessions()), key=len) == [
        [("头痛", "你问的是头痛"), ("还有呢？", "你问的是还有呢？")],
        [("头痛", "你问的是头痛"), ("还有呢？", "你问的是还有呢？"), ("坏掉", "多喝")],
    ]


@pytest.mark.safety
def test_a_notice_is_saved_beside_the_answer_and_the_conversation_goes_on(saving: Served) -> None:
    urgent = "我爸突然剧烈胸痛，喘不上气，大汗"
    talk(saving, urgent, "然后呢？")
    (turns,) = sessions()
    assert texts(turns)[0] == (urgent, f"你问的是{urgent}")
    assert turns[0].origin.notices and not turns[1].origin.edited


def test_titles_and_bare_texts_are_nobodys_conversation(saving: Served) -> None:
    saving.post(question("### Task:\nGenerate a concise, 3-5 word title"))
    saving.post({"prompt": "头痛"}, "/v1/completions")
    saving.wait_until_idle()
    assert sessions() == []


def test_without_it_nothing_is_kept(served: Served, tmp_path: Path) -> None:
    talk(served, "头痛", "还有呢？")
    assert not paths.sessions_file().exists()
