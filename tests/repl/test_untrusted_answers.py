"""Nothing that a model says looks like a line of ours, and our notices come first."""

from __future__ import annotations

from pathlib import Path

import pytest
from pseudo_terminal import rows_under, terminal

from medchat.medical_safety import AI_MARK_ZH

pytestmark = pytest.mark.terminal


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
        said = "\n".join(rows_under(rows, "› 问", "▌"))
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
        rows = rows_under(screen.shown(), "› 胸痛", "先说几句")
        assert all(row.startswith("▌ ") for row in rows)
        assert "".join(row[2:] for row in rows) == urgent + "近期少熬夜"


@pytest.mark.safety
def test_a_notice_is_on_the_screen_before_the_model_says_anything(tmp_path: Path) -> None:
    script = {"notices": [["请拨打 120", True], ["少熬夜", False]], "answers": {"胸痛": [{"gate": "never"}]}}
    with terminal(tmp_path, script) as screen:
        screen.enter("胸痛")
        screen.wait_for("▌ 请拨打 120", "▌ 少熬夜", "正在思考…")
