"""Answers on a real pseudo-terminal: each block printed once, partial answers kept, nothing forged or lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from pseudo_terminal import rows_under, terminal

from medchat.medical_safety import AI_MARK_ZH

pytestmark = pytest.mark.terminal

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
        assert rows_under(everything, "› 问", "▌") == drawn_blocks(columns)
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
        assert rows_under(screen.everything(), "› 问", "▌") == lines


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
        assert rows_under(screen.everything(), "› 问", "▌ 本回答") == ["**一**", "- 二"]


def test_the_figures_and_the_remarks_stand_under_the_answer(tmp_path: Path) -> None:
    script = {"generation": {"max_new_tokens": 2}, "answers": {"问": ["好的"]}}
    with terminal(tmp_path, script) as screen:
        screen.enter("问")
        screen.wait_for_prompt()
        rows = rows_under(screen.everything(), "好的", "›")
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
