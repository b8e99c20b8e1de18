"""Every key of the chat, pressed in one chat after another on a terminal of 40, 80 and 120 columns, with Chinese."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import scripted_chat
from pseudo_terminal import Terminal, terminal

pytestmark = pytest.mark.terminal

UP, DOWN, RIGHT, LEFT, DELETE = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[3~"
ENTER, ALT_ENTER, CTRL_J, TAB, ESC, BACKSPACE = "\r", "\x1b\r", "\n", "\t", "\x1b", "\x7f"
CTRL_C, CTRL_D, CTRL_G, CTRL_R, CTRL_Z = "\x03", "\x04", "\x07", "\x12", "\x1a"
FAMILY = "👨\u200d👩\u200d👧"
#: Wider than the widest of the screens.
LONG = "头痛三天了还有些发热应该怎么办" * 5


def draft(screen: Terminal) -> str | None:
    """Return what is in the prompt, its rows joined; None while there is no prompt."""
    rows = screen.shown()[:-1]  # the last one is the status line
    start = max((at for at, row in enumerate(rows) if row.startswith("›")), default=None)
    if start is None:
        return None
    end = next((at for at in range(start + 1, len(rows)) if not rows[at].strip()), len(rows))
    return "".join(row[2:] for row in rows[start:end])


def expect(screen: Terminal, keys: str, text: str) -> None:
    """Press `keys` and wait until the draft reads `text`."""
    screen.type(keys)
    screen.wait(lambda: draft(screen) == text, f"the draft {text!r} behind {keys!r}")


def sent(screen: Terminal) -> list[str]:
    return [entry["save"][0] for entry in screen.journal() if "save" in entry]


@pytest.mark.parametrize("columns", [40, 80, pytest.param(120, marks=pytest.mark.slow)])
def test_each_key_does_what_the_page_says(tmp_path: Path, columns: int) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "，加一句" >> "$1"\n', encoding="utf-8")
    editor.chmod(0o755)
    script = {"answers": {"没完一": [{"endless": "水"}], "没完二": [{"endless": "水"}]}}
    environment = {"PS1": "shell$ ", "ENV": "/dev/null", "EDITOR": str(editor)}
    words = shlex.join([sys.executable, scripted_chat.__file__, str(tmp_path)])
    with terminal(
        tmp_path, script, command=["sh", "-i"], environment=environment, columns=columns, rows=30
    ) as screen:
        screen.wait_for("shell$")
        before = screen.attributes()
        screen.type(f"{words}\n")
        screen.wait_for_prompt()
        # editing a draft that takes several rows
        expect(screen, LONG, LONG)
        expect(screen, LEFT * 2 + BACKSPACE, LONG[:-3] + LONG[-2:])
        expect(screen, RIGHT + DELETE, LONG[:-3] + LONG[-2])
        expect(screen, CTRL_C, "")
        expect(screen, UP, LONG[:-3] + LONG[-2])
        expect(screen, DOWN, "")
        # lines, a paste, the editor, completion: none sends
        expect(screen, f"一{CTRL_J}二{ALT_ENTER}三", "一二三")
        screen.paste("四\n五")
        expect(screen, CTRL_G, "一二三四五，加一句")
        assert not sent(screen)
        screen.type(ENTER)
        screen.wait(lambda: sent(screen) == ["一\n二\n三四\n五，加一句"], "what was sent")
        screen.wait_for_prompt()
        expect(screen, f"/上下{TAB}", "/上下文")
        expect(screen, CTRL_C, "")
        # a character of several code points goes whole; the search finds what was sent
        screen.type(f"甲{FAMILY}乙{LEFT}{BACKSPACE}{ENTER}")
        screen.wait(lambda: sent(screen)[-1] == "甲乙", "the family taken out")
        screen.wait_for_prompt()
        screen.type(CTRL_R + "加一")
        screen.wait_for("加一句")
        screen.type(ENTER)
        expect(screen, CTRL_C, "")
        # stopping, and what is typed meanwhile
        for question, key in (("没完一", CTRL_C), ("没完二", ESC)):
            screen.enter(question)
            screen.wait_for("水水")
            screen.type("接着")
            screen.wait_for("› 接着")
            screen.type(key)
            screen.wait(lambda question=question: sent(screen)[-1] == question, "the stopped answer saved")
            assert screen.journal()[-1]["save"][2] == "cancelled"
            screen.wait(lambda: "/帮助" in [row for row in screen.shown() if row][-1], "the status line")
            expect(screen, "", "接着")
            expect(screen, CTRL_C, "")
        # suspending, leaving
        expect(screen, "草稿", "草稿")
        screen.type(CTRL_Z)
        screen.wait_for("Stopped")
        screen.type("fg\n")
        screen.wait_for_prompt("草稿")
        expect(screen, CTRL_C, "")
        screen.type(CTRL_D)
        screen.wait(lambda: screen.cursor_row().startswith("shell$"), "the shell")
        assert screen.attributes() == before
