"""`/compare` in a real chat: both answers are seen, none is kept, and the model in use answers on."""

from __future__ import annotations

from pathlib import Path

import pytest
from pseudo_terminal import Terminal
from rich.cells import cell_len
from switching_backbone import ENDLESS, ENDLESS_FILE, SPEECH, make
from switching_chat import ask, lay_out, switching_chat

from medchat.repl.columns import Columns
from medchat.repl.rich_screen import RichScreen
from medchat.store import SessionStore

pytestmark = pytest.mark.terminal


def saved_questions(folder: Path) -> list[str]:
    """Return the questions of the only saved session."""
    with SessionStore.open(folder / "home" / "data" / "sessions.db") as store:
        (record,) = store.list()
        return [saved.turn.question for saved in store.turns(record.id)]


def compare(screen: Terminal, words: str, end: str = "对比的回答不进入对话") -> list[str]:
    """Run `/compare words` and return what it printed."""
    screen.enter("/清屏")
    screen.enter(f"/compare {words}".rstrip())
    screen.wait(lambda: any(end in row for row in screen.shown()), end)
    screen.wait_for_prompt()
    return screen.shown()


@pytest.mark.parametrize(("columns", "beside"), [(40, False), (80, False), (120, True)])
def test_the_last_question_is_answered_by_the_base_too(tmp_path: Path, columns: int, beside: bool) -> None:
    with switching_chat(tmp_path, "--adapter", "lora", columns=columns) as screen:
        ask(screen, "头痛", "one+lora：头痛")
        rows = compare(screen, "")
        if beside:
            (row,) = (row for row in rows if "one+lora：头痛" in row)
            left, right = row.split("│")
            assert (left.strip(), right.strip()) == ("one+lora：头痛", "one：头痛")
            heads = rows[rows.index(row) - 2]
            assert "lora" in heads and heads.endswith("底座")
        else:
            assert rows.index("one+lora：头痛") < rows.index("one：头痛")
        ask(screen, "咳嗽", "one+lora：咳嗽")
    assert saved_questions(tmp_path) == ["头痛", "咳嗽"]


@pytest.mark.parametrize(
    ("words", "voice"),
    [
        ("adapter lora", "one+lora"),
        ("model two", "two"),
        ("适配器 other", "one+other"),
        ("模型 '两 个'", "两 个"),
    ],
)
def test_a_question_of_its_own_goes_to_both_and_into_no_history(
    tmp_path: Path, words: str, voice: str
) -> None:
    lay_out(tmp_path)
    make(tmp_path / "两 个")
    with switching_chat(tmp_path, columns=120) as screen:
        ask(screen, "头痛", "one：头痛")
        rows = compare(screen, f"{words} 咳嗽")
        (row,) = (row for row in rows if "one：咳嗽" in row and f"{voice}：咳嗽" in row)
        below = rows[rows.index(row) :]
        assert sum("人工智能生成" in row for row in below) == 1
        name = voice.removeprefix("one")
        assert any(row.startswith("▌ switching · one：输入") for row in below)
        assert any(row.startswith((f"▌ {name}：输入", f"▌ + {name[1:]}：输入")) for row in below)
        ask(screen, "发热", "one：发热")
    assert saved_questions(tmp_path) == ["头痛", "发热"]


@pytest.mark.parametrize("language", ["zh", "en"])
def test_without_an_adapter_it_asks_with_whom(tmp_path: Path, language: str) -> None:
    with switching_chat(tmp_path, language=language) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.enter("/compare")
        screen.wait_for("/对比 适配器" if language == "zh" else "/compare adapter")


@pytest.mark.parametrize("fate", ["missing", "half", "memory", "crash"])
def test_another_that_fails_leaves_the_chat_as_it_was(tmp_path: Path, fate: str) -> None:
    lay_out(tmp_path)
    make(tmp_path / "bad", fate=fate)
    with switching_chat(tmp_path) as screen:
        ask(screen, "头痛", "one：头痛")
        rows = compare(screen, "model bad", end="错误：")
        assert any("one：头痛" in row for row in rows)
        ask(screen, "咳嗽", "one：咳嗽")
    assert saved_questions(tmp_path) == ["头痛", "咳嗽"]


def test_ctrl_c_stops_the_loading_of_the_other(tmp_path: Path) -> None:
    lay_out(tmp_path)
    make(tmp_path / "slow", fate="slow")
    with switching_chat(tmp_path) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.enter("/compare model slow")
        screen.wait_for("模型加载中… ██████░░░░░░ 1 kB / 2 kB")
        screen.type("\x03")
        screen.wait_for("▌ 已取消加载。", "对比的回答不进入对话")
        assert not any("错误" in row for row in screen.shown())
        ask(screen, "咳嗽", "one：咳嗽")
    assert saved_questions(tmp_path) == ["头痛", "咳嗽"]


SPEECHES = """

## 建议

**多喝水**，注意休息：

- 量体温
- 早睡

| 药 | 用法 |
|---|---|
| 布洛芬 | 饭后服 |

尽快就医。
"""
#: How the speech is drawn; between these rows stand blank ones and the table's lines.
DRAWN = ["建议", "多喝水，注意休息：", "• 量体温", "• 早睡", "药      用法", "布洛芬  饭后服", "尽快就医。"]


def side(rows: list[str], start: int, end: int) -> list[str]:
    """Return what is in the cells from `start` to `end` of the rows, without empty rows and lines of tables."""
    found = []
    for row in rows:
        cells = [cell for letter in row for cell in (letter, "")[: cell_len(letter)]]
        found.append("".join(cells[start:end]).strip())
    return [row for row in found if row.strip("━─")]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_both_answers_are_drawn_as_an_ordinary_one_is(tmp_path: Path, columns: int) -> None:
    lay_out(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / SPEECH).write_text(SPEECHES, encoding="utf-8")
    with switching_chat(tmp_path, columns=columns, rows=60) as screen:
        screen.enter("头痛")
        screen.wait_for("尽快就医。")
        rows = compare(screen, "model two")
    if columns < 120:
        flat = side(rows, 0, columns)
        first, second = flat.index("one：头痛"), flat.index("two：头痛")
        assert flat[first + 1 : first + 8] == DRAWN == flat[second + 1 : second + 8]
    else:
        half = (columns - 3) // 2
        left, right = side(rows, 0, half), side(rows, half + 3, columns)
        for name, shown in (("one", left), ("two", right)):
            at = shown.index(f"{name}：头痛")
            assert shown[at + 1 : at + 8] == DRAWN
        assert side([row for row in rows if "布洛芬" in row or "早睡" in row], half, half + 3) == ["│", "│"]


@pytest.mark.parametrize("key", ["\x03", "\x1b"])
@pytest.mark.parametrize("columns", [80, 120])
def test_either_answer_is_stopped_and_the_chat_goes_on(tmp_path: Path, columns: int, key: str) -> None:
    lay_out(tmp_path)
    (tmp_path / "two" / ENDLESS_FILE).touch()
    with switching_chat(tmp_path, columns=columns) as screen:
        ask(screen, "头痛", "one：头痛")
        screen.enter("/compare model two")
        screen.wait_for("two：头痛又又")
        screen.type(key)
        screen.wait_for("对比的回答不进入对话")
        assert sum("one：头痛" in row for row in screen.everything()) == 2  # each answer is printed once
        screen.enter("/清屏")
        screen.enter(f"/compare model two {ENDLESS}")
        screen.wait_for(f"one：{ENDLESS}又又")
        screen.type(key)
        screen.wait_for("对比的回答不进入对话")
        screen.wait_for_prompt()
        assert not any("two：" in row for row in screen.shown())  # the other was not asked any more
        ask(screen, "咳嗽", "one：咳嗽")
    assert saved_questions(tmp_path) == ["头痛", "咳嗽"]


@pytest.mark.parametrize("width", [100, 120])
def test_columns_keep_their_width_whatever_is_in_them(width: int, tmp_path: Path) -> None:
    with (tmp_path / "screen").open("w+", encoding="utf-8") as stream:
        columns = Columns(RichScreen(stream, width), ("一" * 60, "\x1b[2J▌two"))
        columns.piece("多喝水，" * 50 + "\x1b]52;c;aGk=\x07▌ 系统")
        columns.next()
        columns.piece("word " * 60 + "\n\n👨\u200d👩\u200d👧" * 9)
        columns.finish()
        stream.seek(0)
        shown = stream.read()
    rows = [row for row in shown.splitlines() if "│" in row]
    assert len(rows) > 8 and all(cell_len(row) <= width for row in rows)
    assert {cell_len(row.partition(" │")[0]) for row in rows} == {(width - 3) // 2}
    assert "\x1b]" not in shown and "▌" not in shown and "\x1b[2J" not in shown
