"""Answers on a real pseudo-terminal: each block printed once, partial answers kept, nothing forged or lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pseudo_terminal
import pytest
from pseudo_terminal import terminal

from medchat.medical_safety import AI_MARK_ZH

pytestmark = pytest.mark.terminal

CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"
STOPPED = "▌ （已停止，保留部分回答）"

BLOCKS = [
    "# 头痛的原因\n\n",
    "头痛可能由多种原因引起，例如睡眠不足、用眼过度和 screen time 过长，大多数不需要担心。\n\n",
    "- 睡眠不足\n- 用眼过度\n\n",
    "> 仅供参考\n\n",
    "```\nx = 1\n```\n\n",
    "最后一段",
]


def drawn_blocks(columns: int) -> list[str]:
    """What `BLOCKS` look like, laid out by hand for each width."""
    paragraph = {
        40: [
            "头痛可能由多种原因引起，例如睡眠不足、用",
            "眼过度和 screen time 过长，大多数不需要",
            "担心。",
        ],
        80: [
            "头痛可能由多种原因引起，例如睡眠不足、用眼过度和 screen time 过长，大多数不需要",
            "担心。",
        ],
        120: ["头痛可能由多种原因引起，例如睡眠不足、用眼过度和 screen time 过长，大多数不需要担心。"],
    }[columns]
    return [
        "头痛的原因", "", *paragraph, "", "• 睡眠不足", "• 用眼过度", "", "│ 仅供参考", "", "x = 1", "", "最后一段",
    ]  # fmt: skip


def between(rows: list[str], first: str, last: str) -> list[str]:
    start = rows.index(first) + 1
    return rows[start : next(end for end in range(start, len(rows)) if rows[end].startswith(last))]


# ---------------------------------------------------------------- streaming


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("rows", [8, 30])
def test_each_block_is_in_the_scrollback_exactly_once(tmp_path: Path, columns: int, rows: int) -> None:
    pieces = [block[start : start + 3] for block in BLOCKS for start in range(0, len(block), 3)]
    with terminal(tmp_path, {"answers": {"问": pieces}}, columns=columns, rows=rows) as screen:
        screen.enter("问")
        screen.wait(screen.journal, "the recorded turn")
        screen.wait_for_prompt()
        everything = screen.everything()
        assert between(everything, "› 问", "▌") == drawn_blocks(columns)
        assert sum(row.startswith("▌ 本回答由人工智能生成") for row in everything) == 1


def test_a_finished_block_is_on_the_screen_while_the_next_one_is_still_coming(tmp_path: Path) -> None:
    pieces = ["第一段\n\n第二", {"gate": "more"}, "段"]
    with terminal(tmp_path, {"answers": {"问": pieces}}) as screen:
        screen.enter("问")
        screen.wait(lambda: screen.shown()[:4] == ["› 问", "第一段", "", "第二"], "one block and a half")
        screen.open_gate("more")
        screen.wait(lambda: screen.shown()[:4] == ["› 问", "第一段", "", "第二段"], "both blocks")


def test_an_unfinished_block_taller_than_the_screen_shows_its_end_and_is_printed_whole_once(
    tmp_path: Path,
) -> None:
    lines = [f"第 {number} 行" for number in range(1, 31)]
    pieces = ["\n".join(lines[:20]), {"gate": "more"}, "\n" + "\n".join(lines[20:])]
    with terminal(tmp_path, {"answers": {"问": pieces}}, rows=10) as screen:
        screen.enter("问")
        screen.wait_for("第 20 行")
        assert "第 5 行" not in screen.everything()
        screen.open_gate("more")
        screen.wait(screen.journal, "the recorded turn")
        screen.wait_for_prompt()
        assert between(screen.everything(), "› 问", "▌") == lines


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {}])
def test_the_plain_style_writes_the_text_as_it_comes(tmp_path: Path, environment: dict[str, str]) -> None:
    script = {
        "style": "rich" if environment else "plain",
        "answers": {"问": ["**一**\n", {"gate": "more"}, "- 二"]},
    }
    with terminal(tmp_path, script, environment=environment) as screen:
        screen.enter("问")
        screen.wait_for("**一**")
        screen.open_gate("more")
        screen.wait_for_prompt()
        assert between(screen.everything(), "› 问", "▌ 本回答") == ["**一**", "- 二"]


def test_the_figures_and_the_remarks_stand_under_the_answer(tmp_path: Path) -> None:
    script = {"generation": {"max_new_tokens": 2}, "answers": {"问": ["好的"]}}
    with terminal(tmp_path, script) as screen:
        screen.enter("问")
        screen.wait_for_prompt()
        rows = between(screen.everything(), "好的", "›")
        assert rows[0] == f"▌ {AI_MARK_ZH}"
        assert rows[1].startswith("▌ 回答达到长度上限（2 个词元）")
        assert rows[-2].startswith("▌ 输入 1 · 输出 2 词元 · ") and rows[-2].endswith("上下文 3/2048")


def test_old_turns_that_no_longer_fit_are_named_before_the_answer(tmp_path: Path) -> None:
    script = {"context_length": 60, "answers": {"一" * 30: ["好"], "二" * 30: ["行"]}}
    with terminal(tmp_path, script) as screen:
        screen.enter("一" * 30)
        screen.enter("二" * 30)
        screen.wait_for_prompt()
        rows = screen.everything()
        assert any(row.startswith("▌ 上下文已满，最早的 1 轮未发送") for row in rows[: rows.index("行")])


def test_an_endless_repetition_is_stopped_and_said(tmp_path: Path) -> None:
    with terminal(tmp_path, {"guard_loops": True, "answers": {"问": [{"endless": "复读"}]}}) as screen:
        screen.enter("问")
        screen.wait_for("▌ 模型陷入重复，已自动停止")
        screen.wait_for_prompt()
        assert STOPPED not in screen.everything()
        assert screen.journal()[0]["save"][2] == "cancelled"


def test_a_model_that_fails_part_way_keeps_what_had_come_and_the_chat_goes_on(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"问": ["一半", {"fail": "坏了 \x1b[2J"}]}}) as screen:
        screen.enter("问")
        screen.wait_for("一半", "（回答中途出错，保留部分回答）", "RuntimeError: 坏了")
        screen.enter("再问")
        screen.wait_for("第2次回答：再问")
        screen.wait_for_prompt()
        assert [entry["save"][1:] for entry in screen.journal()] == [
            ["一半", "error"],
            ["第2次回答：再问", "stop"],
        ]


def test_an_answer_without_a_word_is_marked_and_said(tmp_path: Path) -> None:
    with terminal(tmp_path, {"answers": {"问": [" \n"]}}) as screen:
        screen.enter("问")
        screen.wait_for(f"▌ {AI_MARK_ZH}", "▌ （模型没有写出任何文字）")


# ---------------------------------------------------------------- stopping, typing ahead


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
        assert between(screen.everything(), "› 问", "▌") == ["开始"]
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
    command = f"{sys.executable} {pseudo_terminal.__file__} {tmp_path}"
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


def test_a_question_that_does_not_fit_goes_back_into_the_prompt(tmp_path: Path) -> None:
    with terminal(tmp_path, {"context_length": 20}) as screen:
        screen.enter("一二三四五六七八九十" * 2)
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


# ---------------------------------------------------------------- untrusted text


@pytest.mark.safety
@pytest.mark.parametrize("style", ["rich", "plain"])
def test_no_row_of_an_answer_begins_like_the_prompt(tmp_path: Path, style: str) -> None:
    said = [
        "› 假\n\n",
        "**›** 假\n\n# › 假\n\n`›` 假\n\n```\n› 假\n```\n\n",
        "长" * 40 + "› 假\n\\› 假\n❯ 假\n",
        "&rsaquo; 假",
    ]
    with terminal(tmp_path, {"style": style, "answers": {"问": said}}) as screen:
        screen.enter("问")
        screen.wait_for_prompt()
        screen.enter("/历史 1")
        screen.wait_for_prompt()
        prompts = [row for row in screen.everything() if row.lstrip().startswith(("›", "❯"))]
        assert prompts == ["› 问", "› /历史 1", "› 问", "›"]
        assert screen.journal()[0]["save"][1] == "".join(said)


@pytest.mark.safety
@pytest.mark.parametrize("style", ["rich", "plain"])
def test_nothing_a_model_says_moves_the_cursor_or_speaks_for_us(tmp_path: Path, style: str) -> None:
    hostile = [
        "安全\n\n",
        "\x1b[2J\x1b[H\x1b]0;标题\x07\x1b]52;c;aGk=\x07\x1b[?1049h\x9b31m",
        "▌ 紧急提示：转账到此账户\n\n> ▌ 假\n\n&#9612; 假 &#27;[2J \u202e倒\u2066",
        "\r回车\b\b\x7f\n\n[点我](http://evil.example) \x1b]8;;http://evil.example\x1b\\链接\x1b]8;;\x1b",
        "\\完",
    ]
    with terminal(tmp_path, {"style": style, "answers": {"问": hostile}}) as screen:
        screen.enter("问")
        screen.wait_for_prompt()
        rows = screen.everything()
        ours = [row for row in rows if row.startswith("▌")]
        assert ours[0] == f"▌ {AI_MARK_ZH}" and len(ours) == 2
        said = "\n".join(between(rows, "› 问", "▌"))
        assert said.startswith("安全") and "| 紧急提示" in said and "▌" not in said
        assert screen.screen.title == "" and not screen.screen.mode & {1049 << 5}
        raw = bytes(screen.raw)
        assert b"\x1b]" not in raw and b"\x1b[2J" not in raw and "\u202e".encode() not in raw
        assert screen.journal()[0]["save"][1] == "".join(hostile)


@pytest.mark.safety
def test_an_urgent_notice_comes_first_and_every_row_of_it_carries_our_glyph(tmp_path: Path) -> None:
    urgent = "您描述的情况可能危及生命，请立即拨打急救电话，并让患者平卧，不要自行驾车前往医院。"
    script = {
        "notices": [["近期少熬夜", False], [urgent, True]],
        "answers": {"胸痛": ["先说几句", {"gate": "more"}]},
    }
    with terminal(tmp_path, script, columns=40) as screen:
        screen.enter("胸痛")
        screen.wait_for("先说几句")
        rows = between(screen.shown(), "› 胸痛", "先说几句")
        assert all(row.startswith("▌ ") for row in rows)
        assert "".join(row[2:] for row in rows) == urgent + "近期少熬夜"


@pytest.mark.safety
def test_a_notice_is_on_the_screen_before_the_model_says_anything(tmp_path: Path) -> None:
    script = {"notices": [["请拨打 120", True], ["少熬夜", False]], "answers": {"胸痛": [{"gate": "never"}]}}
    with terminal(tmp_path, script) as screen:
        screen.enter("胸痛")
        screen.wait_for("▌ 请拨打 120", "▌ 少熬夜", "正在思考…")


# ---------------------------------------------------------------- signals, the window


@pytest.mark.parametrize("during", ["prompt", "answer"])
def test_sigterm_saves_restores_the_terminal_and_ends_with_143(tmp_path: Path, during: str) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.wait_for_prompt()
        if during == "answer":
            screen.enter("问")
            screen.wait_for("开始啊哈")
        else:
            screen.type("草稿")
            screen.wait_for_prompt("草稿")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.exit_code() == 143
        assert screen.attributes() == screen.attributes_before
        assert bytes(screen.raw).rindex(b"\x1b[?2004l") > bytes(screen.raw).rindex(b"\x1b[?2004h")
        assert not screen.screen.cursor.hidden
        if during == "answer":
            assert screen.journal()[0]["save"][2] == "cancelled"
            assert STOPPED in screen.everything()
        else:
            assert json.loads((tmp_path / "inputs.jsonl").read_text()) == "草稿"


def test_sigterm_while_a_question_waits_for_the_model_keeps_the_question(tmp_path: Path) -> None:
    with terminal(tmp_path, {"load_gate": "never"}) as screen:
        screen.enter("头痛怎么办")
        screen.wait(lambda: screen.shown()[1].startswith("模型载入中…"), "the wait under the question")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.exit_code() == 143
        assert screen.attributes() == screen.attributes_before
        inputs = (tmp_path / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(inputs[-1]) == "头痛怎么办"


@pytest.mark.parametrize("during", ["prompt", "answer"])
def test_a_closed_window_loses_no_words_and_ends_with_129(tmp_path: Path, during: str) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.wait_for_prompt()
        if during == "answer":
            screen.enter("问")
            screen.wait_for("开始啊哈")
        screen.hang_up()
        assert screen.exit_code() == 129
        assert [entry["save"][2] for entry in screen.journal()] == (
            ["cancelled"] if during == "answer" else []
        )


@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "closed"])
def test_what_was_typed_during_an_answer_outlives_the_end_of_the_program(tmp_path: Path, end: str) -> None:
    with terminal(tmp_path, {"answers": {"问": ["开始", {"endless": "啊哈"}]}}) as screen:
        screen.enter("问")
        screen.wait_for("开始啊哈")
        screen.type("第二问错\x7f？\r还有\x1b[200~贴的\r两行\x1b[201~")
        screen.wait_until_taken()
        if end == "closed":
            screen.hang_up()
        else:
            screen.process.send_signal(getattr(signal, end))
        assert screen.exit_code() == (143 if end == "SIGTERM" else 129)
        inputs = (tmp_path / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(inputs[-1]) == "第二问？\n还有贴的\n两行"
        if end == "SIGTERM":
            assert "未发送的内容：第二问？" in screen.everything()


def test_a_resized_window_goes_on_at_its_new_width(tmp_path: Path) -> None:
    paragraph = "头痛可能由多种原因引起" * 6
    pieces = [paragraph, {"gate": "more"}, "\n\n" + paragraph]
    with terminal(tmp_path, {"answers": {"问": pieces}}, columns=80) as screen:
        screen.enter("问")
        screen.wait_for("头痛可能")
        screen.resize(40, 24)
        screen.open_gate("more")
        screen.wait_for_prompt()
        rows = between(screen.everything(), "› 问", "▌")
        assert "".join(rows[-4:]) == paragraph and [len(row) for row in rows[-4:]] == [20, 20, 20, 6]
        screen.resize(60, 24)
        screen.enter("还在")
        screen.wait_for("第2次回答：还在")


def test_an_interrupt_from_outside_at_the_prompt_changes_nothing(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type("草稿")
        screen.wait_for_prompt("草稿")
        os.kill(screen.process.pid, signal.SIGINT)
        screen.type("还在")
        screen.wait_for_prompt("草稿还在")
        screen.type(CTRL_C + CTRL_D)
        assert screen.exit_code() == 0
