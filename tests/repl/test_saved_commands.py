"""Saved sessions in the chat: the real program on a terminal, its sessions and files on disk."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cli_program import MARK_ZH, Scripted, run, saved_turns, tree
from pseudo_terminal import Terminal

from medchat.api import Turn
from medchat.repl.clipboard import MOST_BYTES, clipboard_sequence
from medchat.repl.picker import fitting
from medchat.store import SessionRecord, SessionStore

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.terminal

#: A title and a file name that a terminal must not obey, and that must not look like ours.
HOSTILE = "\x1b]52;c;aGk=\x07\x1b[2J▌ 假提示\u202e"


def store_session(
    question: str, name: str | None = None, model: str = "/模型/别的", turns: int = 1
) -> SessionRecord:
    with SessionStore.open() as store:
        record = store.create("chatglm", model, name=name)
        for number in range(turns):
            store.append_turn(record.id, Turn(f"{question}{number or ''}", "旧回答"))
        return record


def sessions() -> dict[str, list[str]]:
    """The questions of every saved session, by its title."""
    with SessionStore.open() as store:
        return {
            record.title: [saved.turn.question for saved in store.turns(record.id)] for record in store.list()
        }


def converse(screen: Terminal, *questions: str) -> None:
    for question in questions:
        screen.enter(question)
        screen.wait_for(f"你问的是{question}")


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
        heading = {"zh": "接着会话 头痛（3 轮）", "en": "continuing session 头痛 (3 turns)"}[lang]
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


# ---------------------------------------------------------------- picking


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
        screen.wait_for("接着会话 头痛" if lang == "zh" else "session 头痛")
        screen.wait_for_prompt()
        assert not any("Esc" in row for row in screen.shown())  # the list is gone


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
        screen.wait_for("接着会话")
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


# ---------------------------------------------------------------- exporting, copying


@pytest.mark.parametrize(
    ("name", "suffix"), [("导出", ".md"), ("export", ".html"), ("导出", ".jsonl"), ("export", ".json")]
)
def test_the_conversation_is_exported_in_every_form_private_and_never_over_a_file(
    scripted: Scripted, tmp_path: Path, name: str, suffix: str
) -> None:
    place = tmp_path / f"我的 导出{suffix}"
    with scripted.on_terminal(columns=120) as screen:
        screen.enter(f"/{name} {place}")
        screen.wait_for("还没有对话")
        converse(screen, "我叫王小明", "乙")
        screen.enter("/edit 2 q 丙")
        screen.enter(f"/{name} {place} --脱敏")
        screen.wait_for("已导出：")
        screen.wait_for_prompt()
        text = place.read_text(encoding="utf-8")
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert "丙" in text and "王小明" not in text and MARK_ZH in text
        assert ("乙" in text) is (suffix == ".json")
        if suffix == ".json":
            assert json.loads(text)["branches"][0]["after"] == 1
        screen.enter(f"/{name} {place}")
        screen.wait_for("输出文件已存在")
        screen.enter(f"/{name} {place} --overwrite")
        screen.wait(lambda: "王小明" in place.read_text(encoding="utf-8"), "the file replaced")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/导出", "请写文件名"),
        ("/导出 a.txt", "不认识的后缀"),
        ("/导出 /nonexistent/a.md", "无法写入"),
        ("/导出 --redact", "请写文件名"),
    ],
)
def test_what_cannot_be_exported_says_why(scripted: Scripted, typed: str, said: str) -> None:
    assert said in scripted.run("chat", stdin=f"甲\n{typed}\n").err


def test_a_hostile_file_name_changes_nothing_on_the_terminal(scripted: Scripted, tmp_path: Path) -> None:
    name = HOSTILE.replace("\x07", "")
    outcome = scripted.run("chat", stdin=f"甲\n/export {tmp_path}/{name}.md\n")
    assert (tmp_path / f"{name}.md").is_file()
    assert "\x1b" not in outcome.err and "\u202e" not in outcome.err


@pytest.mark.parametrize(("lang", "name"), [("zh", "复制"), ("en", "copy")])
def test_an_answer_is_copied_through_the_terminal_with_the_mark_and_nothing_else(
    scripted: Scripted, lang: str, name: str
) -> None:
    with scripted.on_terminal(lang=lang) as screen:
        converse(screen, "甲")
        screen.enter("控制")
        screen.wait_for("多喝水")
        screen.wait_for_prompt()
        assert b"\x1b]52;" not in screen.raw
        for number, (words, answer) in enumerate((("", "多喝水"), (" 1", "你问的是甲")), 1):
            screen.enter(f"/{name}{words}")
            screen.wait(
                lambda number=number: screen.raw.count(b"\x1b]52;c;") == number, "the clipboard's sequence"
            )
            screen.wait_for_prompt()
            sequence = bytes(screen.raw).rpartition(b"\x1b]52;c;")[2].partition(b"\x07")[0]
            copied = base64.b64decode(sequence).decode()
            assert copied.startswith(answer) and not set("\x1b\x07\u202e") & set(copied)
            assert len(copied.strip().split("\n")) == 3  # the answer, nothing, the mark


def test_without_a_clipboard_an_answer_goes_to_a_private_file_that_goes_with_the_sessions(
    scripted: Scripted,
) -> None:
    outcome = scripted.run("chat", stdin="甲\n/copy\n")
    (place,) = Path(os.environ["MEDCHAT_HOME"]).rglob("copied-answer.txt")
    assert str(place) in outcome.err and "你问的是甲" in place.read_text(encoding="utf-8")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert scripted.run("sessions", "delete", "--all", "--yes").code == 0
    assert not place.exists()


def test_what_is_too_long_for_the_clipboard_is_no_sequence() -> None:
    assert clipboard_sequence("字" * (MOST_BYTES // 3)) is not None
    assert clipboard_sequence("字" * (MOST_BYTES // 3 + 1)) is None
