"""Picking a saved session in the chat, and the list where nothing can be picked."""

from __future__ import annotations

import pytest
from chat_on_disk import HOSTILE, converse, sessions, store_session
from cli_program import Scripted

from medchat.api import Turn
from medchat.repl.picker import fitting
from medchat.store import SessionKind, SessionStore

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.terminal


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize(("lang", "name"), [("zh", "会话"), ("en", "sessions")])
def test_a_session_is_picked_from_the_list(scripted: Scripted, columns: int, lang: str, name: str) -> None:
    for title in ("头痛", "发热", "头晕三天"):
        store_session(f"{title}的问题", title)
    with scripted.on_terminal(lang=lang, columns=columns) as screen:
        screen.wait_for_prompt()
        screen.type(f"/{name}\r")
        screen.wait_for({"zh": "3 个 · 回车打开", "en": "3 · Enter opens"}[lang], "发热")
        screen.type("头天")  # with letters between
        screen.wait_for({"zh": "1 个 · 回车打开", "en": "1 · Enter opens"}[lang])
        screen.type("\x7f\x7f头")
        screen.wait_for({"zh": "2 个 · 回车打开", "en": "2 · Enter opens"}[lang])
        screen.type("\x1b[B\r")
        screen.wait_for("继续会话 头痛" if lang == "zh" else "session 头痛")
        screen.wait_for_prompt()
        assert not any("Esc" in row for row in screen.shown())  # the list is gone


def test_resume_without_an_id_offers_the_chats_and_goes_on_with_the_one_picked(scripted: Scripted) -> None:
    for title in ("头痛", "发热"):
        store_session(title, title)
    with SessionStore.open() as store:
        asked = store.create("scripted", "none", kind=SessionKind.ASK)
        store.append_turn(asked.id, Turn("头晕", "答"))
    with scripted.on_terminal("--resume") as screen:
        screen.wait_for("2 个 · 回车打开", "发热")
        assert not any("头晕" in row for row in screen.shown())
        screen.type("头痛\r")
        screen.wait_for("继续会话 头痛")
        converse(screen, "乙")
        screen.enter("/exit")
        assert screen.exit_code() == 0 and screen.attributes() == screen.attributes_before
    assert sessions()["头痛"] == ["头痛", "乙"]


def test_resume_without_an_id_can_be_left_and_needs_a_terminal(scripted: Scripted) -> None:
    record = store_session("头痛", "头痛")
    with scripted.on_terminal("--resume") as screen:
        screen.wait_for("回车打开")
        screen.type("\x1b")
        assert screen.exit_code() == 0
    outcome = scripted.run("chat", "--resume", stdin="")
    assert outcome.code == 2 and "请指定要继续的会话编号" in outcome.err and record.id in outcome.out
    assert sessions() == {"头痛": ["头痛"]}


@pytest.mark.parametrize("key", ["\x1b", "\x03", "\x04"])
def test_leaving_the_list_changes_nothing_and_the_terminal_is_as_before(scripted: Scripted, key: str) -> None:
    store_session("头痛", "头痛")
    with scripted.on_terminal() as screen:
        converse(screen, "甲")
        screen.type("/会话\r")
        screen.wait_for("回车打开")
        screen.type(key)
        screen.wait_for_prompt()
        converse(screen, "乙")
        screen.enter("/exit")
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before
    assert sessions() == {"甲": ["甲", "乙"], "头痛": ["头痛"]}


def test_a_hostile_title_changes_nothing_on_the_terminal(scripted: Scripted) -> None:
    with SessionStore.open() as store:
        record = store.create("scripted", "none")
        store.append_turn(record.id, Turn(f"{HOSTILE}标题", "答"))
    with scripted.on_terminal() as screen:
        converse(screen, "甲")
        before = len(screen.raw)
        screen.type("/会话\r")
        screen.wait_for("标题", "回车打开")
        screen.type("标题\r")
        screen.wait_for("继续会话")
        screen.enter("/搜索 标题")
        screen.wait_for("【标题】")
        said = bytes(screen.raw[before:])
        assert b"\x1b]52" not in said and "\u202e".encode() not in said and "▌ 假".encode() not in said


@pytest.mark.parametrize(("flags", "colour"), [(("--style", "plain"), ""), ((), "1")])
def test_a_terminal_on_which_nothing_may_move_lists_the_sessions(
    scripted: Scripted, flags: tuple[str, ...], colour: str
) -> None:
    record = store_session("头痛", "头痛")
    with scripted.on_terminal(*flags, environment={"NO_COLOR": colour}) as screen:
        screen.enter("/会话")
        screen.wait_for(record.id, "/载入 编号")
        screen.wait_for_prompt()


def test_without_a_picker_the_sessions_are_listed(scripted: Scripted) -> None:
    record = store_session("头痛", "头痛")
    outcome = scripted.run("chat", stdin="/sessions\n")
    assert record.id in outcome.err and "/载入 编号" in outcome.err
    assert (
        "还没有保存的会话"
        in scripted.run("chat", stdin="/sessions\n", MEDCHAT_HOME=str(scripted.model / "h")).err
    )


def test_lines_are_narrowed_by_words_in_any_width_and_case_the_whole_ones_first() -> None:
    lines = ["Headache 头痛", "头很痛", "ＨＥＡＤ 头", "无关"]
    assert fitting("", lines) == [0, 1, 2, 3]
    assert fitting("头痛", lines) == [0, 1]
    assert fitting("head", lines) == [0, 2]
    assert fitting("痛 头", lines) == [0, 1]
    assert fitting("hdch", lines) == [0]
    assert fitting("没有", lines) == []
