"""Saved sessions in the chat: names, loading, searching, forking; the real program, its sessions on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chat_on_disk import converse, sessions, store_session
from cli_program import Scripted, run, saved_turns, tree

from medchat.api import Turn
from medchat.store import SavedTurn, SessionStore, Transcript

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.terminal


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(("lang", "rename", "save"), [("zh", "改名", "保存"), ("en", "rename", "save")])
def test_a_session_is_named_before_and_after_its_first_turn(
    scripted: Scripted, lang: str, rename: str, save: str
) -> None:
    with scripted.on_terminal(lang=lang) as screen:
        screen.enter(f"/{save} 复诊")
        converse(screen, "甲")
        screen.wait(lambda: "复诊" in screen.shown()[-1], "the name in the status line")
        screen.enter(f"/{rename} 头痛")
        screen.wait(lambda: "头痛" in screen.shown()[-1], "the new name in the status line")
        screen.enter(f"/{save}")
        screen.wait_for({"zh": "每一轮都已保存", "en": "Every turn is saved already"}[lang])
    assert sessions() == {"头痛": ["甲"]}


def test_the_first_words_are_the_title_where_no_name_was_given(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        converse(screen, "头痛三天了")
        screen.wait(lambda: "头痛三天了" in screen.shown()[-1], "the title in the status line")


def test_a_name_that_is_taken_or_none_is_refused(scripted: Scripted) -> None:
    store_session("甲", "头痛")
    outcome = scripted.run("chat", stdin="/rename 头痛\n/rename\n/rename 20261130-aaaa\n乙\n/rename 头痛\n")
    assert outcome.err.count("已有名为“头痛”的会话") == 2 and outcome.err.count("不能用作会话名") == 2
    assert sessions() == {"乙": ["乙"], "头痛": ["甲"]}


# ---------------------------------------------------------------- saving what was not


def test_under_no_save_only_the_second_save_writes_and_then_all_with_branches(scripted: Scripted) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    lines = "甲\n乙\n/edit 2 q 丙\n/save\n丁\n/save\n"
    assert scripted.run("chat", "--no-save", stdin=lines).code == 0
    assert not home.exists()
    outcome = scripted.run("chat", "--no-save", stdin=lines + "/save\n戊\n")
    assert outcome.code == 0 and "请再输入一次 /保存" in outcome.err and "已保存" in outcome.err
    assert sessions() == {"甲": ["甲", "丙", "丁", "戊"]}
    with SessionStore.open() as store:
        assert [other.saved.turn.question for other in store.others(store.list()[0].id)] == ["乙"]


def test_no_save_sees_no_saved_session_and_writes_no_copy(scripted: Scripted) -> None:
    store_session("旧的", "头痛")
    before = tree(Path(os.environ["MEDCHAT_HOME"]))
    lines = "甲\n/load 头痛\n/search 旧\n/sessions\n/copy\n/copy file\n/fork\n"
    outcome = scripted.run("chat", "--no-save", stdin=lines)
    assert outcome.err.count("看不到已保存的会话") == 3 and outcome.err.count("--no-save 时不写文件") == 2
    assert tree(Path(os.environ["MEDCHAT_HOME"])) == before


@pytest.mark.parametrize("name", ["save", "保存"])
def test_a_profile_is_saved_and_names_no_session(scripted: Scripted, name: str) -> None:
    outcome = scripted.run("chat", stdin=f"/{name} profile 复诊\n甲\n/{name} profile\n")
    assert "已存为配置方案“复诊”" in outcome.err and "配置方案的名称无效" in outcome.err
    assert (
        run("chat", "--profile", "复诊", stdin="乙\n", PYTHONPATH=scripted.python_path).out == "你问的是乙\n"
    )
    assert sessions() == {"甲": ["甲"], "乙": ["乙"]}


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize(("lang", "name"), [("zh", "载入"), ("en", "load")])
def test_another_session_goes_on_with_its_last_turns_and_models_shown(
    scripted: Scripted, lang: str, name: str
) -> None:
    scripted.run("chat", "--session", "头痛", stdin="旧一\n旧二\n旧三\n")
    with scripted.on_terminal(lang=lang, rows=40) as screen:
        converse(screen, "甲")
        screen.enter(f"/{name} 头痛")
        heading = {"zh": "继续会话 头痛（3 轮）", "en": "continuing session 头痛 (3 turns)"}[lang]
        screen.wait_for(heading, "旧二", "旧三", "脚本模型")
        assert not any("旧一" in row for row in screen.shown())
        converse(screen, "旧四")
    assert sessions() == {"头痛": ["旧一", "旧二", "旧三", "旧四"], "甲": ["甲"]}


def test_a_session_of_another_model_says_who_answered_and_who_answers(
    scripted: Scripted, tmp_path: Path
) -> None:
    from scripted_backbone import Scripted as Backbone

    scripted.run("chat", stdin="甲\n")
    other = tmp_path / "另一个模型"
    Backbone().tiny(other)
    outcome = Scripted(scripted.site, other).run("chat", "-c", stdin="乙\n")
    assert "上一个回答来自 scripted 脚本模型，现在由 scripted 另一个模型 回答" in outcome.err
    assert [Path(saved.origin.model).name for saved in saved_turns()] == ["脚本模型", "另一个模型"]
    assert "现在由" not in Scripted(scripted.site, other).run("chat", "-c", stdin="丙\n").err


def test_a_session_that_is_not_there_is_said_and_the_present_one_goes_on(scripted: Scripted) -> None:
    outcome = scripted.run("chat", stdin="甲\n/load 没有的\n乙\n")
    assert "没有的" in outcome.err and sessions() == {"甲": ["甲", "乙"]}


# ---------------------------------------------------------------- deleting


def test_a_deleted_sentence_is_in_no_file_of_ours(scripted: Scripted) -> None:
    said = ("只此一句", "改过的一句", "分叉后的一句", "搜过的一句")
    lines = (
        f"{said[0]}\n/regen\n/edit 1 q {said[1]}\n/fork\n{said[2]}\n/undo\n{said[3]}\n/search 一句\n/copy\n"
    )
    home = Path(os.environ["MEDCHAT_HOME"])

    def words() -> bytes:
        return b"".join(content for content in tree(home).values())

    assert scripted.run("chat", stdin=lines).code == 0
    assert all(sentence.encode() in words() for sentence in said)
    with SessionStore.open() as store:
        first, second = (record.id for record in store.list())
    scripted.run("chat", "--session", "留下的", stdin="留下的\n")
    assert scripted.run("sessions", "delete", first, second, "--yes").code == 0
    assert not any(sentence.encode() in words() for sentence in said)
    assert "你问的是留下的".encode() in words()


# ---------------------------------------------------------------- searching, forking


@pytest.mark.parametrize(("lang", "name"), [("zh", "搜索"), ("en", "search")])
def test_a_text_is_found_on_every_branch_and_where_it_is_said(
    scripted: Scripted, lang: str, name: str
) -> None:
    record = store_session("偏头痛三年", "头痛")
    with scripted.on_terminal(lang=lang) as screen:
        converse(screen, "甲头痛")
        screen.enter("/edit 1 q 乙")
        screen.enter(f"/{name} 头痛")
        screen.wait_for(
            record.id,
            "偏【头痛】三年",
            "甲【头痛】",
            {"zh": "（在另一分支）", "en": "(on another branch)"}[lang],
        )
        screen.enter(f"/{name} 没有这个词")
        screen.wait_for({"zh": "没有找到", "en": "Nothing found"}[lang])
        screen.enter(f"/{name}")
        screen.wait_for({"zh": "要搜索的文字是空的", "en": "is empty"}[lang])


def test_a_first_search_says_how_many_turns_are_still_to_be_indexed(scripted: Scripted) -> None:
    with SessionStore.open() as store:
        record = store.create("echo", "none")
        turn = SavedTurn(1, Turn("头痛", "多喝水，注意休息。" * 80), record.created)
        store.add([Transcript(record, (turn,) * 3000)])
    with scripted.on_terminal() as screen:
        converse(screen, "甲")
        screen.enter("/搜索 头痛")
        screen.wait(
            lambda: any("搜索中" in row and "建立索引，还剩" in row for row in screen.shown()),
            "how many turns are left",
        )
        screen.wait_for("【头痛】", "打开其中一个")


@pytest.mark.parametrize("name", ["分叉", "fork"])
def test_a_fork_goes_on_in_a_session_of_its_own(scripted: Scripted, name: str) -> None:
    with scripted.on_terminal() as screen:
        screen.enter(f"/{name}")
        screen.wait_for("还没有可以分叉的对话")
        converse(screen, "甲", "乙")
        screen.enter(f"/{name} 另一种问法")
        screen.wait_for("对话已复制为新的会话")
        converse(screen, "丙")
    assert sessions() == {"另一种问法": ["甲", "乙", "丙"], "甲": ["甲", "乙"]}
