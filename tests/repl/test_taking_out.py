"""What leaves a chat: exports and copied answers."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from chat_on_disk import HOSTILE, converse
from cli_program import MARK_ZH, Scripted

from medchat.repl.rich_screen import MOST_CLIPBOARD_BYTES, clipboard_sequence

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.terminal


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
    assert clipboard_sequence("字" * (MOST_CLIPBOARD_BYTES // 3)) is not None
    assert clipboard_sequence("字" * (MOST_CLIPBOARD_BYTES // 3 + 1)) is None
