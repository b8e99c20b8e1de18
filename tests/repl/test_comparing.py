"""`/compare` in a real chat: both answers are seen, none is kept, and the model in use answers on."""

from __future__ import annotations

from pathlib import Path

import pytest
from pseudo_terminal import Terminal
from switching_backbone import make
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


@pytest.mark.parametrize(("columns", "beside"), [(40, False), (80, True), (120, True)])
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
    [("adapter lora", "one+lora"), ("model two", "two"), ("适配器 other", "one+other"), ("模型 two", "two")],
)
def test_a_question_of_its_own_goes_to_both_and_into_no_history(
    tmp_path: Path, words: str, voice: str
) -> None:
    with switching_chat(tmp_path) as screen:
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
        screen.wait_for("正在思考")
        screen.type("\x03")
        screen.wait_for("已取消加载")
        ask(screen, "咳嗽", "one：咳嗽")
    assert saved_questions(tmp_path) == ["头痛", "咳嗽"]


@pytest.mark.parametrize("width", [72, 80, 120])
def test_columns_keep_their_width_whatever_is_in_them(width: int, tmp_path: Path) -> None:
    from rich.cells import cell_len

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
