"""Names that a terminal would obey, at every door: nothing of them acts, and nothing looks like a line of ours."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from cli_program import Call, Scripted
from pseudo_terminal import Terminal
from wcwidth import wcswidth

from medchat.api import Turn
from medchat.paths import sessions_file
from medchat.store import SessionStore

pytest_plugins = ("cli_program",)

#: What each would do: change the title, fill the clipboard, clear the screen, switch to another one and ask
#: for the mouse, all of it in eight-bit controls, turn the direction of writing, go back over what is there,
#: feign lines.
HOSTILE = {
    "title": "\x1b]0;盗用\x07",
    "clipboard": "\x1b]52;c;aGk=\x07",
    "screen": "\x1b[2J\x1b[H",
    "modes": "\x1b[?1049h\x1b[?1000h",
    "c1": "\x9d0;盗用\x9c\x9b2J",
    "bidi": "\u202e\u2066倒",
    "back": "\r\b\b\x7f",
    "ours": "▌ 假提示 › 假",
    "nul": "甲\0乙",
    "lines": "甲\n错误：假的",
    "long": "长" * 3000,
}
#: What no terminal may get of a name: controls, marks of direction, a line of its own.
_ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\n错误：假")
#: In a chat, lines of ours and the user's begin so.
_FEIGNS = re.compile("▌ 假|› 假")


def inert(text: str, acts: re.Pattern[str] = _ACTS) -> None:
    """Fail where the text would act, with what would."""
    found = acts.search(text)
    assert found is None, repr(text[max(0, found.start() - 40) : found.end() + 40])


@pytest.fixture
def session() -> str:
    with SessionStore.open() as store:
        session = store.create("scripted", "none", name="头痛").id
        store.append_turn(session, Turn("头痛怎么办", "休息"))
    return session


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "nul"])  # no argument can hold one
def test_no_name_on_the_command_line_acts(call: Call, session: str, tmp_path: Path, kind: str) -> None:
    name = HOSTILE[kind]
    place = str(tmp_path / f"{name}.md")
    exported = call("sessions", "export", session, "--output", place)
    if kind == "long":
        assert exported.code == 2 and not [*tmp_path.glob("*.md")]
    else:
        assert exported.code == 0 and "休息" in Path(place).read_text(encoding="utf-8")
    runs = [
        exported,
        call("sessions", "export", session, "--output", str(tmp_path / f"{name}.pdf")),
        call("sessions", "export", session, "--output", str(tmp_path / name / "a.md")),
        call("sessions", "import", place),
        call("sessions", "import", str(tmp_path / f"没有{name}.json")),
        call("ask", "问", "--model", str(tmp_path), "-f", f"没有{name}"),
        call("chat", "--model", f"没有{name}", stdin="问"),
        call("chat", "--model", str(tmp_path), "--template", f"没有{name}", stdin="问"),
        *(call("sessions", verb, f"没有{name}") for verb in ("show", "search", "delete")),
        call("sessions", "rename", session, name),
        call("sessions", "list", "--model", name),
        call("sessions", "list"),
    ]
    for run in runs[1:]:
        assert run.code != 5 and "Traceback" not in run.err
    for run in runs:
        inert(run.out + run.err)


@pytest.mark.parametrize("command", ["list", "show", "search"])
def test_no_stored_name_or_title_acts(call: Call, command: str) -> None:
    whole = "".join(HOSTILE.values())
    with SessionStore.open() as store:
        named = store.create("scripted", whole, (whole,), system=whole).id
        store.append_turn(named, Turn(whole, whole))
        store.append_turn(store.create("scripted", "none").id, Turn(whole, whole))
    with closing(sqlite3.connect(sessions_file())) as file, file:  # a name that MedChat itself would refuse
        file.execute("UPDATE session SET name = ? WHERE id = ?", (whole.replace("\0", ""), named))
    words = {"list": ("--all",), "show": (named,), "search": ("错误",)}[command]
    done = call("sessions", command, *words)
    assert done.code == 0 and done.out
    inert(done.out + done.err)


def test_no_name_in_an_imported_file_acts(call: Call, tmp_path: Path) -> None:
    whole = "".join(HOSTILE.values())
    turn = {"question": whole, "answer": whole, "origin": {"model": whole, "notices": [whole]}}
    session = {"schema": "medchat-session/1", "id": whole, "name": whole, "model": whole, "log": [turn]}
    (tmp_path / "in.json").write_text(json.dumps(session), encoding="utf-8")
    for done in (call("sessions", "import", str(tmp_path / "in.json")), call("sessions", "list", "--all")):
        assert done.code == 0
        inert(done.out + done.err)


COMMANDS = (
    *(
        "file",
        "export",
        "load",
        "rename",
        "search",
        "fork",
        "model",
        "adapter",
        "template",
        "preset",
        "theme",
    ),
    *(
        "lang",
        "set",
        "branch",
        "undo",
        "redo",
        "copy",
        "history",
        "edit",
        "help",
        "save profile",
        "compare model",
    ),
)


def test_no_word_behind_a_command_acts(scripted: Scripted) -> None:
    names = [name for name in HOSTILE.values() if "\n" not in name]
    lines = [f"/{command} {name}" for command in COMMANDS for name in names]
    lines += [f"/{name}" for name in names]
    done = scripted.run("chat", stdin="\n".join(["问", *lines, "完"]) + "\n")
    assert done.out.splitlines()[-1] == "你问的是完" and "Traceback" not in done.err
    inert(done.err)
    inert(done.err, _FEIGNS)


# ---------------------------------------------------------------- on the terminal


def assert_untouched(screen: Terminal, since: int = 0) -> None:
    """Fail where the title, a mode or the clipboard was reached, or a row looks like one of ours."""
    assert screen.screen.title == "" == screen.screen.icon_name
    assert not screen.screen.mode & {1049 << 5, 1000 << 5}
    raw = bytes(screen.raw[since:])
    assert b"\x1b]" not in raw and "\u202e".encode() not in raw and "\x9b".encode() not in raw
    rows = screen.everything()
    assert not [row for row in rows if row.startswith(("▌ 假", "▌ 错误：假"))]
    # Where a long path is wrapped a row may begin with any part of it; a line of its own follows a shorter row.
    full = screen.screen.columns - 1
    assert not [row for above, row in pairwise(rows) if row.startswith("错误：假") and wcswidth(above) < full]


@pytest.mark.terminal
@pytest.mark.parametrize("columns", [40, pytest.param(120, marks=pytest.mark.slow)])
def test_names_that_are_pasted_behind_commands_change_nothing(
    scripted: Scripted, tmp_path: Path, columns: int
) -> None:
    with scripted.on_terminal(columns=columns, rows=40) as screen:
        screen.enter("问")
        screen.wait_for("你问的是问")
        for command in ("/文件 ", "/导出 ", "/载入 ", "/改名 "):
            for name in HOSTILE.values():
                screen.wait_for_prompt()
                screen.paste(f"{command}{tmp_path}/没有{name}.md")
                screen.wait(lambda: screen.cursor_row() != "›", "the paste")
                screen.type("\r")
        screen.wait_for_prompt()
        assert_untouched(screen)
        screen.enter("还在")
        screen.wait_for("你问的是还在")
        screen.enter("/退出")
        assert screen.exit_code() == 0
        assert screen.attributes() == screen.attributes_before
