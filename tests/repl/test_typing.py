"""The prompt on a real pseudo-terminal: Chinese editing, pastes, history, drafts, keys, loading."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import scripted_chat
from pseudo_terminal import Terminal, terminal

pytestmark = pytest.mark.terminal

UP, LEFT, CTRL_C, CTRL_D, CTRL_J, CTRL_R, CTRL_G, CTRL_Z = (
    "\x1b[A", "\x1b[D", "\x03", "\x04", "\n", "\x12", "\x07", "\x1a",
)  # fmt: skip


def cursor(screen: Terminal) -> tuple[int, int]:
    return screen.screen.cursor.x, screen.screen.cursor.y


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("label", ["chatglm", "llama · /数据/模型/很长的目录名/" + "中文" * 30, "x" * 200])
def test_the_status_line_keeps_the_way_to_help_however_long_the_names_are(
    tmp_path: Path, columns: int, label: str
) -> None:
    with terminal(tmp_path, {"model_label": label}, columns=columns) as screen:
        screen.wait(
            lambda: any(row.rstrip().endswith("· /帮助") for row in screen.shown()), "the status line"
        )
        (status,) = [row for row in screen.shown() if "/帮助" in row]
        assert status.startswith(label[:9])


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_chinese_typing_and_backspace_fill_the_right_columns(tmp_path: Path, columns: int) -> None:
    with terminal(tmp_path, columns=columns, rows=12) as screen:
        screen.wait_for_prompt()
        fits = (columns - 2) // 2  # behind the mark, two columns a character
        screen.type("头" * fits)
        screen.wait(lambda: screen.shown()[0] == "› " + "头" * fits, "a full row")
        screen.type("痛")
        screen.wait(
            lambda: screen.shown()[1].strip() == "痛", "the character that no longer fits, on the next row"
        )
        screen.type("\x7f\x7f")
        screen.wait_for_prompt("头" * (fits - 1))
        assert cursor(screen) == (2 + 2 * (fits - 1), 0)
        screen.type(LEFT * 2 + "\x7f" + "牙")
        screen.wait_for_prompt("头" * (fits - 4) + "牙" + "头" * 2)
        screen.wait(lambda: cursor(screen) == (2 + 2 * (fits - 3), 0), "the cursor behind 牙")


def test_enter_sends_and_ctrl_j_or_alt_enter_make_a_new_line(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type("一" + CTRL_J + "二\x1b\r三\r")
        screen.wait(screen.journal, "the recorded turn")
        assert screen.journal()[0]["save"][0] == "一\n二\n三"


def test_a_pasted_block_never_sends_itself(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.paste("第一行\n第二行\n第三行\n")
        screen.wait_for("第三行")
        assert screen.shown()[:3] == ["› 第一行", "  第二行", "  第三行"]
        screen.type("尾\r")
        screen.wait(screen.journal, "the recorded turn")
        assert [entry["save"][0] for entry in screen.journal()] == ["第一行\n第二行\n第三行\n尾"]


def test_earlier_inputs_come_back_with_up_and_ctrl_r(tmp_path: Path) -> None:
    with terminal(tmp_path, {"past_inputs": ["昨天的问题", "发烧怎么办"]}) as screen:
        screen.wait_for_prompt()
        screen.type(UP)
        screen.wait_for_prompt("昨天的问题")
        screen.type(UP)
        screen.wait_for_prompt("发烧怎么办")
        screen.type(CTRL_C)
        screen.wait_for_prompt()
        screen.type(CTRL_R + "昨天")
        screen.wait_for("昨天的问题")
        screen.type("\r\r")
        screen.wait(screen.journal, "the recorded turn")
        assert screen.journal()[0]["save"][0] == "昨天的问题"


def test_ctrl_c_clears_the_line_and_up_brings_it_back_without_a_trace_on_disk(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type("说了一半")
        screen.wait_for_prompt("说了一半")
        screen.type(CTRL_C)
        screen.wait_for_prompt()
        screen.type(UP)
        screen.wait_for_prompt("说了一半")
        assert not (tmp_path / "inputs.jsonl").exists()


def test_ctrl_d_leaves_on_an_empty_line_only(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type("头痛" + LEFT + CTRL_D)
        screen.wait_for_prompt("头")
        assert screen.process.poll() is None
        screen.type("\x7f")
        screen.wait_for_prompt()
        screen.type(CTRL_D)
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before


def test_a_long_question_is_whole_in_the_scrollback_once_it_is_sent(tmp_path: Path) -> None:
    with terminal(tmp_path, rows=24) as screen:
        screen.wait_for_prompt()
        screen.paste("\n".join(f"第{number}行" for number in range(20)))
        screen.wait(lambda: screen.cursor_row().endswith("第19行"), "the paste")
        assert not any("第0行" in row for row in screen.shown())  # rows above the input stay free
        screen.type("\r")
        screen.wait(screen.journal, "the recorded turn")
        screen.wait_for_prompt()
        assert screen.everything()[:20] == ["› 第0行", *(f"  第{number}行" for number in range(1, 20))]


@pytest.mark.parametrize("word", ["exit", "quit", "  QUIT ", "退出"])
def test_a_bare_word_that_leaves_other_programs_leaves(tmp_path: Path, word: str) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type(word + "\r")
        assert screen.exit_code() == 0
        assert screen.journal() == []


def test_a_bare_clear_is_asked_back_and_sent_when_it_comes_again(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.enter("clear")
        screen.wait_for("▌ 没有发送。开始新会话：/新建")
        assert screen.journal() == []
        screen.enter("头痛")
        screen.enter("clear")  # after something else it is asked back again
        screen.wait_for_prompt()
        assert [entry["save"][0] for entry in screen.journal()] == ["头痛"]
        screen.enter("clear")
        screen.wait(lambda: len(screen.journal()) == 2, "the word sent")


def test_lines_typed_before_the_prompt_stands_are_lines_like_any_other(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.type("头痛怎么办？\r发烧呢？\r还没写")
        screen.wait(lambda: len(screen.journal()) == 2, "both turns")
        assert [entry["save"][0] for entry in screen.journal()] == ["头痛怎么办？", "发烧呢？"]
        screen.wait_for_prompt("还没写")


def test_a_question_typed_before_the_prompt_waits_for_the_model(tmp_path: Path) -> None:
    with terminal(tmp_path, {"load_gate": "loaded"}) as screen:
        screen.type("头痛怎么办？\r")
        screen.wait(lambda: any(row.startswith("模型加载中…") for row in screen.shown()), "the wait")
        screen.open_gate("loaded")
        screen.wait_for("第1次回答：头痛怎么办？")


def test_tab_completes_commands_in_the_language_they_were_begun_in(tmp_path: Path) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type("/und\t")
        screen.wait(lambda: screen.shown()[0] == "› /undo", "the English name")
        screen.type(CTRL_C + "/撤\t")
        screen.wait(lambda: screen.shown()[0] == "› /撤销", "the Chinese name")
        screen.type(CTRL_C + "/set max\t")
        screen.wait(lambda: screen.shown()[0] == "› /set max-new-tokens", "the setting")


def test_ctrl_g_edits_the_draft_in_the_editor_and_sends_nothing(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text(
        '#!/bin/sh\nprintf "：加上一句" >> "$1"\nstat -c %a "$1" > "$0.mode"\n', encoding="utf-8"
    )
    editor.chmod(0o755)
    with terminal(tmp_path, environment={"EDITOR": str(editor)}) as screen:
        screen.wait_for_prompt()
        screen.type("头痛")
        screen.wait_for_prompt("头痛")
        screen.type(CTRL_G)
        screen.wait_for_prompt("头痛：加上一句")
        assert not screen.journal()
        assert (tmp_path / "editor.mode").read_text().strip() == "600"


def test_ctrl_z_gives_the_shell_back_and_fg_the_draft(tmp_path: Path) -> None:
    command = f"{sys.executable} {scripted_chat.__file__} {tmp_path}"
    environment = {"PS1": "shell$ ", "ENV": "/dev/null"}
    with terminal(tmp_path, command=["sh", "-i"], environment=environment) as screen:
        screen.wait_for("shell$")
        screen.type(command + "\n")
        screen.wait_for_prompt()
        screen.type("写到一半")
        screen.wait_for_prompt("写到一半")
        screen.type(CTRL_Z)
        screen.wait_for("Stopped")
        screen.type("echo 1 + $((1 + 1))\n")
        screen.wait_for("1 + 2")
        screen.type("fg\n")
        screen.wait_for_prompt("写到一半")
        screen.type("继续\r")
        screen.wait(screen.journal, "the recorded turn")
        assert screen.journal()[0]["save"][0] == "写到一半继续"


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize("columns", [40, 80])
def test_the_opening_is_broken_as_chinese_is(tmp_path: Path, columns: int) -> None:
    opening = "紧急情况：有生命危险时请立即拨打 12356 或者 120，不要等待这里的回答。\x1b[2J"
    with terminal(tmp_path, {"opening": [opening]}, columns=columns) as screen:
        screen.wait_for_prompt()
        expected = {
            40: ["紧急情况：有生命危险时请立即拨打 12356", "或者 120，不要等待这里的回答。"],
            80: ["紧急情况：有生命危险时请立即拨打 12356 或者 120，不要等待这里的回答。"],
        }[columns]
        assert screen.shown()[: len(expected)] == expected


def test_the_prompt_is_there_while_the_model_loads_and_a_question_waits_visibly(tmp_path: Path) -> None:
    with terminal(tmp_path, {"load_gate": "load", "ready_lines": ["继续会话 甲"]}) as screen:
        screen.wait_for_prompt()
        screen.wait_for("模型加载中…")
        screen.type("头痛\r")
        screen.wait(lambda: screen.shown()[1].startswith("模型加载中…"), "the wait under the question")
        screen.open_gate("load")
        screen.wait_for("第1次回答：头痛")
        screen.wait_for_prompt()
        shown = screen.everything()
        assert sum("模型加载中" in row for row in shown) == 0
        assert shown.index("▌ 继续会话 甲") < shown.index("第1次回答：头痛")


def test_ctrl_c_while_waiting_for_the_model_gives_the_question_back(tmp_path: Path) -> None:
    with terminal(tmp_path, {"load_gate": "load"}) as screen:
        screen.wait_for_prompt()
        screen.type("头痛\r")
        screen.wait(lambda: screen.shown()[1].startswith("模型加载中…"), "the wait under the question")
        screen.type(CTRL_C)
        screen.wait_for_prompt("头痛")
        screen.open_gate("load")
        screen.type("吗\r")
        screen.wait(screen.journal, "the recorded turn")
        assert screen.journal()[0]["save"][0] == "头痛吗"


@pytest.mark.parametrize("sent", ["", "\r"], ids=["typed", "sent"])
def test_a_model_that_cannot_be_loaded_ends_with_its_code_and_keeps_the_draft(
    tmp_path: Path, sent: str
) -> None:
    with terminal(tmp_path, {"load_gate": "load", "load_fails": "找不到权重文件"}) as screen:
        screen.wait_for_prompt()
        screen.type("头痛怎么办" + sent)
        screen.wait_for("头痛怎么办", "模型加载中…")
        screen.open_gate("load")
        assert screen.exit_code() == 3
        screen.wait_for("未发送的内容：头痛怎么办", "错误：找不到权重文件", "下一步：medchat models show")
        assert json.loads((tmp_path / "inputs.jsonl").read_text().splitlines()[-1]) == "头痛怎么办"
        assert screen.attributes() == screen.attributes_before


def test_leaving_while_the_model_loads_is_quick_and_quiet(tmp_path: Path) -> None:
    with terminal(tmp_path, {"load_gate": "never"}) as screen:
        screen.wait_for_prompt()
        screen.type(CTRL_D)
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before
        assert "Traceback" not in "\n".join(screen.everything())


def test_what_libraries_print_while_loading_stands_above_the_prompt(tmp_path: Path) -> None:
    script = {"load_gate": "load", "load_prints": ["warning: \x1b[2J old file\u202e"]}
    with terminal(tmp_path, script) as screen:
        screen.wait_for_prompt()
        screen.type("草稿")
        screen.open_gate("load")
        screen.wait_for("▌ warning:  old file")
        screen.wait_for_prompt("草稿")


def test_without_colour_the_wait_for_the_model_does_not_move(tmp_path: Path) -> None:
    with terminal(tmp_path, {"load_gate": "load"}, environment={"NO_COLOR": "1"}) as screen:
        screen.wait_for_prompt()
        screen.type("头痛\r")
        screen.wait(lambda: "▌ 模型加载中" in screen.shown(), "the wait, said once")
        screen.open_gate("load")
        screen.wait_for("第1次回答：头痛")
        screen.wait_for_prompt()
        coloured = [
            code for code in bytes(screen.raw).split(b"\x1b[")[1:] if code[:1] in b"34" and b"m" in code[:6]
        ]
        assert not coloured


def test_a_dumb_terminal_gets_text_and_nothing_else(tmp_path: Path) -> None:
    with terminal(
        tmp_path, {"answers": {"头痛": ["**多**", "喝水"]}}, environment={"TERM": "dumb"}
    ) as screen:
        screen.wait_for("›")
        screen.type("头痛\n")
        screen.wait_for("**多**喝水", "本回答由人工智能生成")
        screen.type(CTRL_C)
        screen.wait(
            lambda: sum(row.startswith("›") for row in screen.shown()) == 3, "a fresh prompt after Ctrl-C"
        )
        screen.type(CTRL_D)
        assert screen.exit_code() == 0
        assert b"\x1b" not in bytes(screen.raw)


FAMILY, THUMB, FLAG, ACCENT = "👨\u200d👩\u200d👧", "👍🏽", "🇨🇳", "e\u0301"


@pytest.mark.parametrize("character", [FAMILY, THUMB, FLAG, ACCENT, "一"])
@pytest.mark.parametrize("keys", ["\x7f", "\x1b[D\x1b[3~", "\x1b[D\x1b[D\x1b[C\x1b[3~"])
def test_keys_act_on_what_a_reader_takes_for_one_character(tmp_path: Path, character: str, keys: str) -> None:
    with terminal(tmp_path) as screen:
        screen.wait_for_prompt()
        screen.type(f"头{character}")
        screen.type(f"{keys}\x05痛\r")  # Ctrl-E: to the end
        screen.wait(screen.journal, "a turn")
        assert [turn["save"][0] for turn in screen.journal()] == ["头痛"]
