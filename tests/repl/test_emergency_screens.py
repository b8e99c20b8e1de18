"""Emergencies on a real pseudo-terminal: what a person sees, where it stands, and that it is not missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pseudo_terminal import terminal
from wcwidth import wcswidth

from medchat.api import Notice
from medchat.medical_safety import AI_MARK_ZH, find_red_flags

pytestmark = [pytest.mark.terminal, pytest.mark.safety]

CHEST, MOTHER, SELF_HARM = "我爸胸口疼，出冷汗", "我妈胸口疼，出冷汗", "我爸胸口疼，我也不想活了"
ANSWERS = {CHEST: ["先坐下。"], MOTHER: ["也先坐下。"], SELF_HARM: ["我在听。"]}


def notice(question: str) -> Notice:
    return find_red_flags(question).notices[0]


def rows_between(rows: list[str], first: str, last: str) -> list[str]:
    """Return the rows behind the last one that holds `first`, up to the next that holds `last`."""
    start = max(number for number, row in enumerate(rows) if first in row)
    end = next(number for number, row in enumerate(rows) if number > start and last in row)
    return rows[start + 1 : end]


def without_blanks(text: str) -> str:
    """Return the text as it can be compared: a screen does not tell at which blank a row was broken."""
    return "".join(text.split())


def ours_in(rows: list[str]) -> str:
    """Return what our own rows say; fails where another row stands among them."""
    assert all(row.startswith("▌ ") for row in rows if row), rows
    return without_blanks("".join(row[2:] for row in rows))


@pytest.mark.parametrize("style", ["rich", "plain"])
@pytest.mark.parametrize("columns", [40, 80])
def test_the_notice_stands_whole_before_the_answer_and_each_row_of_it_is_ours(
    tmp_path: Path, columns: int, style: str
) -> None:
    script = {"red_flags": True, "style": style, "answers": {CHEST: [{"gate": "go"}, *ANSWERS[CHEST]]}}
    with terminal(tmp_path, script, columns=columns) as screen:
        screen.enter(CHEST)
        screen.wait_for(notice(CHEST).text[-4:])  # the model has not said a word yet
        assert not any("先坐下" in row for row in screen.shown())
        screen.open_gate("go")
        screen.wait_for("先坐下。", AI_MARK_ZH[:8])
        rows = rows_between(screen.everything(), f"› {CHEST}", "先坐下。")
        if style == "rich":
            assert ours_in(rows) == without_blanks(notice(CHEST).text)
            assert all(wcswidth(row) <= columns for row in rows)
        else:  # wrapped by the terminal itself
            assert without_blanks(f"▌ {notice(CHEST).text}") in without_blanks("".join(rows))


@pytest.mark.parametrize("columns", [40, 80])
def test_a_second_message_of_the_same_kind_gets_one_short_line(tmp_path: Path, columns: int) -> None:
    with terminal(tmp_path, {"red_flags": True, "answers": ANSWERS}, columns=columns) as screen:
        for question in (CHEST, MOTHER):
            screen.enter(question)
            screen.wait_for(*ANSWERS[question])
            screen.wait_for_prompt()
        rows = rows_between(screen.everything(), f"› {MOTHER}", ANSWERS[MOTHER][0])
        assert ours_in(rows) == without_blanks(notice(MOTHER).short)


def test_self_harm_comes_first_whatever_else_is_said(tmp_path: Path) -> None:
    first, *others = find_red_flags(SELF_HARM).notices
    assert first.key == "self-harm-now"  # with first aid: a body is in danger too
    with terminal(tmp_path, {"red_flags": True, "answers": ANSWERS}, rows=30) as screen:
        screen.enter(SELF_HARM)
        screen.wait_for("我在听。")
        rows = rows_between(screen.everything(), f"› {SELF_HARM}", "我在听。")
        assert ours_in(rows) == without_blanks(first.text + "".join(other.text for other in others))


def test_an_answer_taller_than_the_screen_is_followed_by_the_short_line(tmp_path: Path) -> None:
    answers = {CHEST: [f"第{number}句。\n\n" for number in range(30)], MOTHER: ["短答。"]}
    with terminal(tmp_path, {"red_flags": True, "answers": answers}, rows=20) as screen:
        screen.enter(CHEST)
        screen.wait_for("第29句")
        screen.wait_for_prompt()
        rows = rows_between(screen.shown(), "第29句", "›")
        assert f"▌ {notice(CHEST).short}" in rows
        screen.enter(MOTHER)
        screen.wait_for("短答。")
        screen.wait_for_prompt()
        rows = rows_between(screen.shown(), "短答。", "›")
        assert f"▌ {notice(CHEST).short}" not in rows and f"▌ {AI_MARK_ZH}" in rows


def test_an_answer_against_the_notice_is_followed_by_one_line_that_says_so(tmp_path: Path) -> None:
    answers = {CHEST: ["不用去医院，", "在家观察就好。"], "感冒了": ["不用去医院。"]}
    with terminal(tmp_path, {"red_flags": True, "answers": answers}) as screen:
        screen.enter(CHEST)
        screen.wait_for("在家观察就好。")
        screen.wait_for_prompt()
        rows = rows_between(screen.shown(), "在家观察就好。", "›")
        assert rows.count("▌ 这段回答与上面的提示不一致，请以提示为准。") == 1
        screen.enter("感冒了")
        screen.wait_for("不用去医院。")
        screen.wait_for_prompt()
        assert not any("以提示为准" in row for row in rows_between(screen.shown(), "› 感冒了", "›"))


def test_the_notice_is_on_the_screen_while_the_model_is_still_loading_and_not_again_after_it(
    tmp_path: Path,
) -> None:
    script = {"red_flags": True, "load_gate": "loaded", "answers": ANSWERS}
    with terminal(tmp_path, script) as screen:
        screen.enter(CHEST)
        screen.wait_for("▌ 请马上停下一切活动", "模型加载中")
        assert not any(ANSWERS[CHEST][0] in row for row in screen.shown())
        screen.open_gate("loaded")
        screen.wait_for(ANSWERS[CHEST][0])
        screen.wait_for_prompt()
        assert sum("请马上停下一切活动" in row for row in screen.everything()) == 1
        screen.enter(MOTHER)
        screen.wait_for(ANSWERS[MOTHER][0])
        assert any(notice(MOTHER).short in row for row in screen.shown())
