"""Slash commands on a real pseudo-terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from pseudo_terminal import terminal

from medchat.repl.commands import COMMANDS

pytestmark = pytest.mark.terminal


def test_an_unknown_command_is_not_sent_and_a_suggestion_shown(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.enter("/regne")
        screen.wait_for("没有命令 /regne，内容没有发给模型", "是不是想用：/regen")
        screen.enter("//regne 是什么")
        screen.wait_for("第1次回答：/regne 是什么")
        screen.wait_for_prompt()
        assert [entry["save"][0] for entry in screen.journal()] == ["/regne 是什么"]


def test_undo_takes_turns_back_and_says_which(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        for question in ("一", "二", "三"):
            screen.enter(question)
        screen.enter("/撤销 2")
        screen.wait_for("已撤销 2 轮（/重做 恢复）：")
        screen.wait_for_prompt()
        rows = screen.everything()
        assert rows[rows.index("已撤销 2 轮（/重做 恢复）：") + 1 :][:2] == ["  二", "  三"]
        screen.enter("/undo 5")
        screen.wait_for("当前会话有 1 轮，无法撤销 5 轮")
        screen.enter("/undo 两")
        screen.wait_for("/撤销 后面要写轮数，不是 两")
        screen.wait_for_prompt()
        assert screen.journal()[-1] == {"undo": 2}


def test_regen_answers_again_in_place_of_the_last_turn(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.enter("/重答")
        screen.wait_for("还没有可以重答的问题")
        screen.enter("一")
        screen.wait_for("第1次回答：一")
        screen.enter("/regen")
        screen.wait_for("第2次回答：一")
        screen.wait_for_prompt()
        screen.enter("/history")
        screen.wait_for("  1  一")
        screen.wait_for_prompt()
        assert len(screen.journal()) >= 2
        assert "  2  " not in "\n".join(screen.everything())


def test_a_new_answer_that_is_stopped_leaves_the_earlier_one(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"一": ["开头", {"gate": "more"}, "结尾"]}}) as screen:
        screen.open_gate("more")
        screen.enter("一")
        screen.wait_for("开头结尾")
        screen.wait_for_prompt()
        (tmp_path / "more").unlink()
        screen.enter("/regen")
        screen.wait(lambda: "\n".join(screen.shown()).count("开头") == 2, "the new answer begins")
        screen.type("\x03")
        screen.wait_for("（已停止，保留原来的回答）")
        screen.wait_for_prompt()
        assert "保留部分回答" not in "\n".join(screen.everything())
        assert screen.journal() == [{"save": ["一", "开头结尾", "stop"]}]


def test_set_shows_changes_and_refuses(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"长": ["甲乙丙丁"]}}, rows=40) as screen:
        screen.enter("/set temperature 9")
        screen.wait_for("：temperature 的值 9.0 超出范围", "有效范围是 (0, 2]")
        screen.enter("/设置 max-new-tokens 4")
        screen.wait_for("max-new-tokens = 4（下一个回答起生效）")
        screen.enter("/set")
        screen.wait_for("max-new-tokens      4", "temperature         0.95", "history             all")
        screen.enter("长")
        screen.wait_for("回答达到长度上限（4 个词元）")


def test_new_forgets_what_was_said_and_keeps_the_model(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.enter("一")
        screen.enter("/new")
        screen.wait_for("已开始新会话")
        screen.enter("/history")
        screen.wait_for("还没有对话。")


def test_history_shows_a_turn_in_full_with_the_mark(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"问": ["# 标题\n\n▌ 假提示\n\n" + "很长" * 60]}}, rows=40) as screen:
        screen.enter("问")
        screen.enter("/clear")
        screen.wait(lambda: screen.shown()[0].startswith("›") or screen.shown()[0] == "", "a clear screen")
        screen.enter("/历史 1")
        screen.wait_for("› 问", "标题", "| 假提示")
        screen.wait_for_prompt()
        rows = screen.shown()
        assert sum("本回答由人工智能生成" in row for row in rows) == 1
        assert "".join(row for row in rows if row.startswith("很长")) == "很长" * 60
        screen.enter("/历史 2")
        screen.wait_for("没有第 2 轮", "可选 1 到 1")


def test_help_names_every_command_in_both_languages(tmp_path: Path) -> None:
    with terminal(tmp_path, rows=80) as screen:
        screen.enter("/帮")
        screen.wait_for(*(f"/{command.name} /{command.zh_name}" for command in COMMANDS), "Ctrl-G")
        screen.wait_for("/pulse /脉搏")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_help_fits_the_window_and_explains_one_command_in_full(tmp_path: Path, columns: int) -> None:
    with terminal(tmp_path, columns=columns, rows=100) as screen:
        screen.enter("/帮助 /undo")
        screen.wait_for("/undo [n]    /撤销 [n]", "模型不再看到撤销的问答。", "例如：/撤销 2")
        screen.enter("/clear")
        screen.enter("/help")
        screen.wait_for("Ctrl-G", "/pulse /脉搏")
        screen.wait_for_prompt()
        rows = screen.everything()
        under = rows[next(i for i, row in enumerate(rows) if "/undo /撤销 [n]" in row) + 1]
        assert ("撤销最近 n 轮" in under) is (
            columns == 40
        )  # one above the other where there is no room beside


def test_help_for_no_command_suggests_one(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.enter("/help undoo")
        screen.wait_for("没有命令 /undoo", "是不是想用：/undo")


def test_stats_and_disclaimer(tmp_path: Path) -> None:
    with terminal(tmp_path, rows=40) as screen:
        screen.enter("一")
        screen.enter("/stats")
        screen.wait_for("float32", "上一个回答：", "folder/first", "注意其一；注意其二")
        assert not any(mark in row for row in screen.shown() for mark in ("('", "['"))
        screen.enter("/声明")
        screen.wait_for("MedChat 使用声明", "6. 紧急情况")


@pytest.mark.parametrize("command", ["/exit", "/退出"])
def test_exit_leaves(tmp_path: Path, command: str) -> None:
    with terminal(tmp_path) as screen:
        screen.enter(command)
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before


def test_a_plugin_command_works_and_a_failing_or_greedy_one_is_contained(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.enter("/pulse 72")
        screen.wait_for("脉搏 72")
        screen.enter("/崩溃")
        screen.wait_for("插件 medchat-pulse（pulse）出错：/crash: IndexError")
        screen.enter("/exit")
        assert screen.exit_code() == 0
        assert "被取代" not in screen.everything()
