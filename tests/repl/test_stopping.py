"""Stopping an answer and typing while it comes: partial answers are kept, no key is lost."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import scripted_chat
from pseudo_terminal import rows_under, terminal

pytestmark = pytest.mark.terminal

CTRL_C, CTRL_Z = "\x03", "\x1a"
STOPPED = "▌ （已停止，保留部分回答）"


def test_ctrl_c_keeps_the_partial_answer_and_more_of_them_change_nothing(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.enter("问")
        screen.wait_for("开始啊哈")
        screen.type(CTRL_C * 3)
        screen.wait_for(STOPPED[2:])
        screen.wait_for_prompt()
        question, answer, finish = screen.journal()[0]["save"]
        assert (question, finish) == ("问", "cancelled") and answer.startswith("开始啊哈")
        screen.enter("还在吗")
        screen.wait_for("第2次回答：还在吗")


def test_ctrl_c_before_the_first_word_gives_the_question_back(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"问题": [{"gate": "never"}]}}) as screen:
        screen.enter("问题")
        screen.wait_for("正在思考…")
        screen.type(CTRL_C)
        screen.wait_for_prompt("问题")
        assert not screen.journal()


def test_keys_typed_during_an_answer_are_in_the_next_prompt_and_not_in_the_answer(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"gate": "more"}, "，结束"]}}) as screen:
        screen.enter("问")
        screen.wait_for("开始")
        screen.type("下一个\x7f题" + CTRL_C)  # the kernel would throw typed keys away at Ctrl-C
        screen.wait_for_prompt("下一题")
        assert rows_under(screen.everything(), "› 问", "▌") == ["开始"]
        screen.type("\r")
        screen.wait_for("第2次回答：下一题")


def test_a_long_paste_during_an_answer_is_whole_and_does_not_send_itself(tmp_path: Path) -> None:
    lines = [f"第{number}行病历" for number in range(600)]  # several times what the kernel keeps
    with terminal(
        tmp_path, {"context_length": 20000, "answers": {"问": ["开始", {"gate": "more"}]}}
    ) as screen:
        screen.enter("问")
        screen.wait_for("开始")
        screen.paste("\n".join(lines))
        screen.open_gate("more")
        screen.wait_for("第599行病历")
        assert len(screen.journal()) == 1
        screen.type("\r")
        screen.wait(lambda: len(screen.journal()) == 2, "the second turn")
        assert screen.journal()[1]["save"][0] == "\n".join(lines)


def test_ctrl_z_during_an_answer_gives_the_shell_back_and_fg_goes_on(tmp_path: Path) -> None:
    command = f"{sys.executable} {scripted_chat.__file__} {tmp_path}"
    script = {"answers": {"问": ["开始", {"gate": "more"}, "，结束"]}}
    environment = {"PS1": "shell$ ", "ENV": "/dev/null"}
    with terminal(tmp_path, script, command=["sh", "-i"], environment=environment) as screen:
        screen.wait_for("shell$")
        before = screen.attributes()
        screen.type(command + "\n")
        screen.enter("问")
        screen.wait_for("开始")
        screen.type(CTRL_Z)
        screen.wait_for("Stopped")
        assert screen.attributes() == before
        screen.open_gate("more")
        screen.type("fg\n")
        screen.wait_for("，结束")
        screen.wait_for_prompt()
        assert screen.journal()[0]["save"][1:] == ["开始，结束", "stop"]
        assert "开始，结束" in screen.shown()  # whole, below what the shell has written


def test_a_question_that_does_not_fit_goes_back_into_the_prompt(tmp_path: Path) -> None:
    with terminal(tmp_path, {"context_length": 20}) as screen:
        screen.wait_for_prompt()
        screen.type("一二三四五六七八九十" * 2 + "\r")  # it is back before one could see it gone
        screen.wait_for("▌ 错误：问题太长")
        screen.wait_for_prompt("一二三四五六七八九十" * 2)


@pytest.mark.parametrize("question", ["长" * 3000, "行\n" * 300], ids=["one line", "many lines"])
@pytest.mark.parametrize("rows", [12, 24])
def test_why_a_question_came_back_is_on_the_screen_above_it_however_long_it_is(
    tmp_path: Path, question: str, rows: int
) -> None:
    with terminal(tmp_path, {"context_length": 20}, rows=rows) as screen:
        screen.wait_for_prompt()
        screen.paste(question + "尾")
        screen.wait(lambda: screen.cursor_row().endswith("尾"), "the paste")
        screen.type("\r")
        screen.wait_for("▌ 错误：问题太长", "▌ 下一步：")
        screen.wait(lambda: screen.cursor_row().endswith("尾"), "the draft")
        assert any(row.startswith("▌ 错误：问题太长") for row in screen.shown())
        screen.type("！")
        screen.wait(lambda: screen.cursor_row().endswith("尾！"), "the draft, edited")
        assert any(row.startswith("▌ 错误：问题太长") for row in screen.shown())


@pytest.mark.parametrize("follows", ["", "咳嗽"])
def test_esc_stops_an_answer_as_ctrl_c_does(tmp_path: Path, follows: str) -> None:
    with terminal(tmp_path, {"answers": {"头痛": ["水", {"endless": "水"}]}}) as screen:
        screen.enter("头痛")
        screen.wait_for("水水")
        screen.type("\x1b")
        screen.wait_for(STOPPED[2:])
        screen.wait_for_prompt()
        screen.type(follows)
        screen.wait_for_prompt(follows)
        assert [turn["save"][2] for turn in screen.journal()] == ["cancelled"]


@pytest.mark.parametrize("key", ["\x1b[A", "\x1b[3~", "\x1bOP", "\x1b\r", "\x1b[200~贴\x1b[201~"])
def test_a_key_that_begins_as_esc_does_stops_nothing(tmp_path: Path, key: str) -> None:
    with terminal(tmp_path, {"answers": {"头痛": ["水", {"gate": "go"}, "完"]}}) as screen:
        screen.enter("头痛")
        screen.wait_for("水")
        screen.type(key)
        screen.wait_until_taken()
        time.sleep(0.3)  # twice as long as Esc takes to count
        screen.open_gate("go")
        screen.wait(screen.journal, "a turn")
        assert [turn["save"][1:] for turn in screen.journal()] == [["水完", "stop"]]


@pytest.mark.parametrize("columns", [40, 80])
def test_what_is_typed_while_the_model_answers_is_seen_below_the_answer(tmp_path: Path, columns: int) -> None:
    with terminal(tmp_path, {"answers": {"头痛": ["多喝水", {"gate": "go"}]}}, columns=columns) as screen:
        screen.enter("头痛")
        screen.wait_for("多喝水")
        screen.type("还要")
        screen.wait(lambda: "› 还要" in screen.shown(), "what was typed")
        assert screen.shown().index("多喝水") < screen.shown().index("› 还要")
        screen.type("吃药吗" + "很久" * columns + "\x7f完")
        screen.wait(
            lambda: any(row.startswith("›") and row.endswith("很完") for row in screen.shown()), "its end"
        )
        screen.open_gate("go")
        screen.wait(lambda: any("AI" in row or "人工智能" in row for row in screen.shown()), "the mark")
        assert not any(row == "› 还要" for row in screen.everything())
        assert [turn["save"][1] for turn in screen.journal()] == ["多喝水"]


@pytest.mark.parametrize("style", ["rich", "plain"])
@pytest.mark.parametrize("bell", ["on", "off", "set on", "set off", "for long answers alone"])
def test_the_bell_rings_once_when_a_long_answer_ends(tmp_path: Path, bell: str, style: str) -> None:
    script = {
        "answers": {"头痛": ["多喝水", {"gate": "go"}, "。"]},
        "style": style,
        "bell": bell not in ("off", "set on"),
        "bell_after": 60 if bell == "for long answers alone" else 0,
    }
    with terminal(tmp_path, script) as screen:
        if bell.startswith("set"):
            screen.enter(f"/set bell {bell[4:]}")
        screen.wait_for_prompt()
        assert b"\a" not in screen.raw
        screen.enter("头痛")
        screen.wait_for("多喝水")
        assert b"\a" not in screen.raw
        screen.open_gate("go")
        screen.wait(screen.journal, "a turn")
        screen.wait_for_prompt()
        assert screen.raw.count(b"\a") == (bell in ("on", "set on"))
