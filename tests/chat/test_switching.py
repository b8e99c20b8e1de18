"""Another model, adapter or template while a conversation continues, and the old one after any failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from switching_backbone import FATES, FIXED, OPEN, make
from switching_chat import lay_out

from medchat.chat.conversation import PreparedChat, prepare_conversation
from medchat.chat.demo_mode import mark_as_demo
from medchat.chat.events import AnswerFinished
from medchat.chat.loading import Loading, LoadingCancelled
from medchat.chat.model_control import ModelControl
from medchat.chat.session import ChatSession
from medchat.chat.session_choice import SessionChoice
from medchat.chat.switching import another_model, session_beside, switch_model
from medchat.demo_data import demo_examples
from medchat.errors import MedchatError, MemoryShortageError
from medchat.registry.guarded_model import given_model
from medchat.repl.set_command import apply_setting
from medchat.store import SavedTurn

pytest_plugins = ("plugin_sites",)


@pytest.fixture
def chat(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedChat]:
    """A saved conversation with the model `one`; models and adapters lie beside it."""
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, site)
    OPEN.clear()
    prepared = prepare_conversation({"model": str(tmp_path / "one")}, SessionChoice(), pytest.fail)
    yield prepared
    prepared.store.close()


@pytest.fixture
def session(chat: PreparedChat) -> ChatSession:
    return chat.begin(chat.opening.load())


def said(session: ChatSession, question: str = "头痛") -> str:
    """Ask and return the answer."""
    *_, last = session.ask(question, threading.Event())
    assert isinstance(last, AnswerFinished)
    return last.turn.answer


def saved(chat: PreparedChat) -> list[SavedTurn]:
    record = chat.saved_session()
    assert record is not None
    return list(chat.store.turns(record.id))


def model(chat: PreparedChat, session: ChatSession, path: str, loading: Loading | None = None) -> None:
    switch_model(chat, session, another_model(chat, path), "/模型", loading or Loading())


def adapter(chat: PreparedChat, session: ChatSession, *paths: str) -> None:
    switch_model(chat, session, {"adapter": paths}, "/适配器", Loading())


def test_the_conversation_goes_on_and_each_turn_keeps_who_said_it(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    assert said(session) == "one：头痛"
    adapter(chat, session, str(tmp_path / "lora"))
    assert said(session) == "one+lora：头痛"
    model(chat, session, str(tmp_path / "two"))
    assert said(session) == "two：头痛"
    origins = [turn.origin for turn in saved(chat)]
    assert [Path(origin.model).name for origin in origins] == ["one", "one", "two"]
    assert [[Path(path).name for path in origin.adapters] for origin in origins] == [[], ["lora"], []]
    record = chat.saved_session()
    assert record is not None and Path(record.model).name == "two" and len(session.conversation.turns) == 3
    assert len(OPEN) == 1


@pytest.mark.parametrize("chosen", [{}, {"greedy": False}])
def test_the_settings_shown_are_those_that_the_answer_is_saved_with(
    chat: PreparedChat, tmp_path: Path, chosen: dict[str, Any]
) -> None:
    mark_as_demo(tmp_path / "two")
    model(chat, chat.begin(chat.opening.load()), str(tmp_path / "two"))  # the miniature of the demo is greedy
    control, session = ModelControl(chat), chat.begin(chat.opening.load())
    for name, value in chosen.items():
        apply_setting(session, name, "on" if value else "off")
    control.change(chosen, "/设置")
    assert said(session, demo_examples()[0].question)
    shown = {line.key.name: line.value for line in control.effective()}
    origin = saved(chat)[-1].origin
    assert origin.settings["greedy"] is chosen.get("greedy", True)
    for name in origin.settings:
        assert shown[f"generation.{name}"] == getattr(session.config, name)
    assert (shown["template"], shown["backbone"]) == (origin.template, "switching")


def test_an_adapter_is_exchanged_without_loading_the_base_again(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    (tmp_path / "one" / "fate").write_text("missing")  # to load it now would fail
    adapter(chat, session, str(tmp_path / "lora"), str(tmp_path / "other"))
    assert said(session) == "one+lora+other：头痛"
    adapter(chat, session)
    assert said(session) == "one：头痛"


def test_a_backbone_that_cannot_exchange_loads_again(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    (tmp_path / "one" / FIXED).touch()
    adapter(chat, session, str(tmp_path / "lora"))
    assert said(session) == "one+lora：头痛" and len(OPEN) == 1


@pytest.mark.parametrize("fate", [fate for fate in FATES if fate not in ("slow", "crowded")])
@pytest.mark.parametrize("kind", ["model", "adapter", "fixed adapter"])
def test_after_a_failure_the_old_one_answers(
    chat: PreparedChat, session: ChatSession, tmp_path: Path, kind: str, fate: str
) -> None:
    adapter(chat, session, str(tmp_path / "lora"))
    bad = make(tmp_path / "bad", kind.split()[-1], fate)
    if kind.startswith("fixed"):
        (tmp_path / "one" / FIXED).touch()
    with pytest.raises(MedchatError):
        (model if kind == "model" else adapter)(chat, session, str(bad))
    assert said(session) == "one+lora：头痛" and len(OPEN) == 1
    assert [Path(path).name for path in saved(chat)[0].origin.adapters] == ["lora"]


@pytest.mark.parametrize("path", ["absent", "", "\0", "https://example.org/v1"])
def test_what_is_no_model_is_refused_before_anything_is_loaded(
    chat: PreparedChat, session: ChatSession, path: str
) -> None:
    before = session.model
    with pytest.raises(MedchatError):
        model(chat, session, path)
    assert session.model is before and said(session) == "one：头痛"


def test_where_both_do_not_fit_the_old_one_goes_first(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    make(tmp_path / "big", fate="crowded")
    loading = Loading()
    model(chat, session, str(tmp_path / "big"), loading)
    assert loading.making_room and said(session) == "big：头痛" and len(OPEN) == 1


def test_where_the_old_one_had_to_go_for_nothing_it_is_loaded_again(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    make(tmp_path / "huge", fate="memory")
    with pytest.raises(MemoryShortageError):
        model(chat, session, str(tmp_path / "huge"))
    assert said(session) == "one：头痛" and len(OPEN) == 1


def test_where_not_even_that_works_the_chat_says_so_and_takes_another_model(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    make(tmp_path / "huge", fate="memory")
    (tmp_path / "one" / "fate").write_text("missing")
    with pytest.raises(MedchatError) as info:
        model(chat, session, str(tmp_path / "huge"))
    assert "900" in info.value.what and "权重不全" in info.value.what
    with pytest.raises(MedchatError) as info:
        said(session)
    assert "/模型" in info.value.remedy
    model(chat, session, str(tmp_path / "two"))
    assert said(session) == "two：头痛" and len(OPEN) == 1


def test_loading_is_watched_and_can_be_stopped(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    make(tmp_path / "slow", fate="slow")
    loading, failed = Loading(), []

    def work() -> None:
        try:
            model(chat, session, str(tmp_path / "slow"), loading)
        except MedchatError as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    while not loading.read:
        worker.join(0.01)
    loading.stop.set()
    worker.join(10)
    assert 0 < loading.read < loading.total == 2000
    assert [type(error) for error in failed] == [LoadingCancelled]
    assert said(session) == "one：头痛" and len(OPEN) == 1


def test_a_model_beside_says_the_conversation_on_and_leaves_no_trace(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    said(session)
    turns = session.conversation
    for changes, voice in (
        ({"adapter": (str(tmp_path / "lora"),)}, "one+lora"),
        (another_model(chat, str(tmp_path / "two")), "two"),
        ({"adapter": ()}, "one"),
    ):
        with session_beside(chat, session, changes, "/对比", Loading()) as other:
            assert said(other, "咳嗽") == f"{voice}：咳嗽"
        assert said_by(session) == "one" and len(OPEN) == 1
    assert session.conversation == turns and len(saved(chat)) == 1
    assert chat.settings.value("adapter") == ()


def said_by(session: ChatSession) -> str:
    found: Any = given_model(session.model)
    return str(found.voice)


@pytest.mark.parametrize("fate", ["missing", "memory", "half", "crash"])
def test_a_comparison_that_fails_leaves_the_model_in_use(
    chat: PreparedChat, session: ChatSession, tmp_path: Path, fate: str
) -> None:
    make(tmp_path / "bad", fate=fate)
    make(tmp_path / "worse", "adapter", fate)
    for changes in (another_model(chat, str(tmp_path / "bad")), {"adapter": (str(tmp_path / "worse"),)}):
        with pytest.raises(MedchatError), session_beside(chat, session, changes, "/对比", Loading()):
            pass
    assert said(session) == "one：头痛" and len(OPEN) == 1


def test_an_adapter_that_vanished_while_another_was_compared_is_loaded_again_or_said(
    chat: PreparedChat, session: ChatSession, tmp_path: Path
) -> None:
    adapter(chat, session, str(tmp_path / "lora"))
    with (
        pytest.raises(MedchatError),
        session_beside(chat, session, {"adapter": (str(tmp_path / "other"),)}, "/对比", Loading()),
    ):
        (tmp_path / "lora").rename(tmp_path / "elsewhere")
    with pytest.raises(MedchatError) as info:
        said(session)
    assert "/模型" in info.value.remedy
    model(chat, session, str(tmp_path / "two"))
    assert said(session) == "two：头痛" and len(OPEN) == 1
