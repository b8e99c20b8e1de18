"""Editing, continuing, taking back, branches: the real program on a terminal, its sessions on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_on_disk import converse
from cli_program import PAIRS, Call, Scripted, saved_turns
from pseudo_terminal import terminal

from medchat.store import SessionStore

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.terminal


def asked() -> list[str]:
    """The questions of the only saved session."""
    return [saved.turn.question for saved in saved_turns()]


def others() -> int:
    """How many turns are on other branches."""
    with SessionStore.open() as store:
        return len(store.others(store.list()[0].id))


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize(("lang", "command"), [("zh", "/编辑 2 问"), ("en", "/edit 2 q")])
def test_a_question_is_edited_in_the_prompt_and_the_conversation_goes_on_from_there(
    scripted: Scripted, columns: int, lang: str, command: str
) -> None:
    with scripted.on_terminal(lang=lang, columns=columns, rows=40) as screen:
        converse(screen, "甲", "乙", "丙")
        screen.enter(command)
        screen.wait_for_prompt("乙")
        label = {"zh": "正在编辑第 2 轮的问题", "en": "editing the question"}[lang]
        screen.wait(lambda: label in screen.shown()[-1], "the status line")
        screen.type("二\r")
        screen.wait_for("你问的是乙二")
        screen.wait_for_prompt()
        assert asked() == ["甲", "乙二"] and others() == 2
        screen.enter({"zh": "/历史", "en": "/history"}[lang])
        screen.wait_for({"zh": "（第 2 个分支，共 2 个）", "en": "(branch 2 of 2)"}[lang])


def test_an_answer_is_edited_and_marked_as_the_users_words(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        converse(screen, "甲", "乙")
        screen.enter("/edit 1 a")
        screen.wait_for_prompt("你问的是甲")
        screen.type("，多休息\r")
        screen.wait_for("第 1 轮的回答已改", "之后的 1 轮在另一分支")
        (turn,) = saved_turns()
        assert turn.turn.answer == "你问的是甲，多休息" and turn.origin.edited
        screen.enter("/编辑 答")
        screen.wait_for_prompt("你问的是甲，多休息")
        screen.type("\r")
        screen.wait_for("回答没有改动")
        assert others() == 2


def test_ctrl_c_leaves_the_edit_and_what_is_typed_then_is_a_question(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        converse(screen, "甲", "乙")
        screen.enter("/编辑 1")
        screen.wait_for_prompt("甲")
        screen.type("\x03")
        screen.wait(lambda: "正在编辑" not in screen.shown()[-1], "the edit left")
        converse(screen, "丙")
        assert asked() == ["甲", "乙", "丙"]


def test_ctrl_g_opens_the_editor_on_what_is_edited(scripted: Scripted, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "多休息" > "$1"\n', encoding="utf-8")
    editor.chmod(0o755)
    with scripted.on_terminal(environment={"EDITOR": str(editor)}) as screen:
        converse(screen, "甲")
        screen.enter("/编辑 答")
        screen.wait_for_prompt("你问的是甲")
        screen.type("\x07")
        screen.wait_for_prompt("多休息")
        screen.type("\r")
        screen.wait_for("第 1 轮的回答已改")
        assert saved_turns()[0].turn.answer == "多休息"


def test_another_command_leaves_the_edit_too(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        converse(screen, "甲")
        screen.enter("/编辑")
        screen.wait_for_prompt("甲")
        screen.type("\x15/历史\r")  # Ctrl-U empties the line
        screen.wait_for("/历史 N")
        converse(screen, "乙")
        assert asked() == ["甲", "乙"]


def test_a_text_that_begins_with_a_slash_is_edited_and_no_command(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        screen.enter("//exit 是什么")
        screen.wait_for("你问的是/exit 是什么")
        screen.enter("/编辑")
        screen.wait_for_prompt("//exit 是什么")
        screen.type("呢\r")
        screen.wait_for("你问的是/exit 是什么呢")
        screen.wait_for_prompt()
        assert asked() == ["/exit 是什么呢"]


def test_a_hostile_answer_does_nothing_to_the_prompt_it_is_edited_in(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        screen.enter("控制")
        screen.wait_for("多喝水")
        before = len(screen.raw)
        screen.enter("/编辑 答")
        screen.wait(lambda: "正在编辑" in screen.shown()[-1], "the edit")
        screen.wait(lambda: screen.cursor_row().startswith("› "), "a prompt")
        assert b"\x1b]52" not in screen.raw[before:] and "\u202e" not in "".join(screen.shown())


@pytest.mark.parametrize(
    ("typed", "said"),
    [("/编辑 9", "没有第 9 轮"), ("/编辑 x", "无法理解 /编辑 x"), ("/编辑 0 答", "没有第 0 轮")],
)
def test_an_edit_of_nothing_says_what_there_is(scripted: Scripted, typed: str, said: str) -> None:
    with scripted.on_terminal() as screen:
        converse(screen, "甲")
        screen.enter(typed)
        screen.wait_for(said)
        screen.wait_for_prompt()
        assert asked() == ["甲"]


def test_lines_without_a_terminal_can_be_edited_at_once(scripted: Scripted) -> None:
    outcome = scripted.run("chat", stdin="甲\n乙\n/edit 1 q 丙\n/edit 1 a 改 过\n/history\n")
    assert outcome.out.splitlines() == ["你问的是甲", "你问的是乙", "你问的是丙"]
    (turn,) = saved_turns()
    assert (turn.turn.question, turn.turn.answer) == ("丙", "改 过")


# ---------------------------------------------------------------- continuing


@pytest.mark.parametrize(("lang", "name"), [("zh", "续写"), ("en", "continue")])
def test_an_answer_at_its_limit_goes_on(scripted: Scripted, lang: str, name: str) -> None:
    with scripted.on_terminal("--max-new-tokens", "4", lang=lang) as screen:
        screen.enter("头痛怎么办")
        screen.wait_for("/续写" if lang == "zh" else "/continue")
        screen.enter(f"/{name}")
        screen.wait_for("头痛怎么")
        screen.enter(f"/{name}")
        screen.wait_for_prompt()
        (turn,) = saved_turns()
        assert (turn.turn.answer, turn.turn.finish, turn.completion_tokens) == (
            "你问的是头痛怎么办",
            "stop",
            9,
        )
        screen.enter(f"/{name}")
        screen.wait_for("上一个回答没有中断" if lang == "zh" else "was not cut off")


@pytest.mark.torch
def test_a_real_model_goes_on_as_if_it_had_not_been_cut_off(call: Call, talker: Path) -> None:
    for question, answer in PAIRS.items():
        lines = f"{question}\n/set max-new-tokens 64\n/continue\n"
        done = call(
            "chat",
            "--model",
            str(talker),
            "--greedy",
            "--max-new-tokens",
            "4",
            "--session",
            question,
            stdin=lines,
        )
        assert done.code == 0, done.err
        with SessionStore.open() as store:
            (turn,) = store.turns(store.get(question).id)
        assert (turn.turn.answer, turn.turn.finish) == (answer, "stop")


def test_a_text_of_several_lines_is_edited_as_it_is(scripted: Scripted) -> None:
    with scripted.on_terminal() as screen:
        screen.wait_for_prompt()
        screen.paste("甲\n  乙")
        screen.type("\r")
        screen.wait_for("  乙")
        screen.wait_for_prompt()
        screen.type("/编辑 1 问\r")
        screen.wait(lambda: screen.cursor_row() == "    乙", "the last line of the draft")
        screen.type("丙\r")
        screen.wait_for_prompt()
        assert asked() == ["甲\n  乙丙"]


def test_a_model_that_cannot_go_on_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:

    script = {"answers": {"长": ["甲乙丙丁"]}, "generation": {"max_new_tokens": 4}}
    with terminal(tmp_path_factory.mktemp("remote"), script) as screen:
        screen.enter("长")
        screen.enter("/续写")
        screen.wait_for("这个模型不能续写", "/重答")


# ---------------------------------------------------------------- taking back, bringing back


def test_undone_turns_come_back(scripted: Scripted) -> None:
    with scripted.on_terminal(rows=40) as screen:
        converse(screen, "甲", "乙", "丙")
        screen.enter("/撤销 2")
        screen.wait_for("已撤销 2 轮（/重做 恢复）")
        screen.enter("/历史")
        screen.wait_for("（之后另有 1 个分支）")
        screen.enter("/重做")
        screen.wait_for("对话现在有 2 轮，从第 2 轮起：")
        screen.enter("/redo 1")
        screen.wait_for("对话现在有 3 轮，从第 3 轮起：")
        assert asked() == ["甲", "乙", "丙"]
        screen.enter("/重做")
        screen.wait_for("没有可以恢复的内容，也没有别的分支")
        screen.enter("/重做 二")
        screen.wait_for("/重做 后面要写轮数")


@pytest.mark.parametrize("columns", [40, 120])
def test_branches_are_listed_and_gone_to(scripted: Scripted, columns: int) -> None:
    with scripted.on_terminal(rows=50, columns=columns) as screen:
        converse(screen, "甲", "乙")
        screen.enter("/编辑 1 问 丙")
        screen.wait_for("你问的是丙")
        screen.enter("/重答")
        screen.enter("/分支")
        screen.wait_for("第 1 轮：", "  1  甲（之后 1 轮）", " *3  丙", "/分支 1 1")
        screen.enter("/branch 1 1")
        screen.wait_for("对话现在有 2 轮，从第 1 轮起：")
        screen.wait_for_prompt()
        assert asked() == ["甲", "乙"]
        screen.enter("/分支 7 1")
        screen.wait_for("没有可以恢复")
        screen.enter("/分支 2")
        screen.wait_for("第 2 轮没有别的分支。")
        screen.enter("/分支 一")
        screen.wait_for("请写轮号和分支号")
    assert asked() == ["甲", "乙"] and others() == 2


def test_the_branches_of_the_last_places_are_listed_and_of_any_one_that_is_named(scripted: Scripted) -> None:
    turns = [line for number in range(12) for line in (f"问{number}", "/regen")]
    scripted.run("chat", stdin="\n".join(turns) + "\n")
    listed = scripted.run("chat", "-c", stdin="/branch\n", MEDCHAT_LANG="zh").err
    assert "第 2 轮：" not in listed and all(f"第 {place} 轮：" in listed for place in range(3, 13))
    assert "前面还有 2 处有分支。列出某一处：/分支 1" in listed
    one = scripted.run("chat", "-c", stdin="/branch 2\n", MEDCHAT_LANG="zh").err
    assert [f"第 {place} 轮：" in one for place in (1, 2, 3)] == [False, True, False]
    assert " *2  问1" in one and "前面还有" not in one


def test_branches_are_there_after_a_restart(scripted: Scripted) -> None:
    scripted.run("chat", stdin="甲\n乙\n/edit 1 q 丙\n")
    outcome = scripted.run("chat", "-c", stdin="/branch 1 1\n/undo\n/redo\n丁\n")
    assert outcome.code == 0, outcome.err
    assert asked() == ["甲", "乙", "丁"]


def test_branches_work_where_nothing_is_saved(scripted: Scripted) -> None:
    outcome = scripted.run("chat", "--no-save", stdin="甲\n乙\n/edit 1 q 丙\n/branch 1 1\n/history\n")
    assert outcome.code == 0 and "对话现在有 2 轮" in outcome.err
