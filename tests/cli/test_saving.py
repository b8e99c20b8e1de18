"""What `medchat ask` leaves on disk, and what `--no-save` does not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cli_program import FULL_ZH, PAIRS, Call, Scripted, copy_of, saved_turns, tree

pytest_plugins = ("cli_program",)

QUESTION = next(iter(PAIRS))


def test_no_save_leaves_nothing_anywhere(scripted: Scripted, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    home = Path(os.environ["MEDCHAT_HOME"])
    for _ in range(2):  # whether the disclaimer was shown is read and never noted
        outcome = scripted.run("ask", "秘密的问题", "--no-save", cwd=work, HOME=str(work), TMPDIR=str(work))
        assert outcome.code == 0 and FULL_ZH in outcome.err
    assert not home.exists() and tree(work) == {}


def test_no_save_changes_no_byte_of_what_was_saved_before(scripted: Scripted, tmp_path: Path) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    scripted.run("ask", "你好")
    before = tree(home)
    unsaved = scripted.run("ask", "秘密的问题", "--no-save", "--json")
    assert unsaved.one()["session"] is None and FULL_ZH not in unsaved.err
    assert tree(home) == before and before


@pytest.mark.torch
def test_no_save_leaves_nothing_with_a_real_model_either(
    call: Call, talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    model = copy_of(talker, tmp_path / "model")
    before = tree(model)
    monkeypatch.chdir(work)
    assert call("ask", QUESTION, "--model", str(model), "--no-save", "--greedy").code == 0
    assert not Path(os.environ["MEDCHAT_HOME"]).exists()
    assert tree(work) == {} and tree(model) == before


def test_saved_files_are_the_owners_alone_whatever_the_umask(scripted: Scripted) -> None:
    before = os.umask(0)
    try:
        scripted.run("ask", "你好")
    finally:
        os.umask(before)
    home = Path(os.environ["MEDCHAT_HOME"])
    modes = {path: path.stat().st_mode & 0o777 for path in [home, *home.rglob("*")]}
    assert len(modes) > 2
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_a_question_can_go_on_with_the_latest_session_or_a_named_one(scripted: Scripted) -> None:
    scripted.run("ask", "一", "--session", "复诊")
    scripted.run("ask", "二", "--session", "复诊")
    assert scripted.run("ask", "三", "-c").code == 0
    assert [saved.turn.question for saved in saved_turns()] == ["一", "二", "三"]
    one = scripted.run("ask", "四", "--session", "复诊", "--json").one()
    alone = scripted.run("ask", "四", "--session", "复诊", "--history", "none", "--json").one()
    assert one["prompt_tokens"] > alone["prompt_tokens"]


def test_a_home_that_cannot_be_written_is_said_loudly_and_the_answer_still_comes(
    scripted: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = scripted.run("ask", "你好", MEDCHAT_HOME=str(tmp_path / "file" / "home"))
    assert (outcome.code, outcome.out) == (0, "你问的是你好\n")
    assert "未保存" in outcome.err


def garbled_pages(store: Path) -> None:
    """Everything behind the first page: the file opens, and no table can be read."""
    content = bytearray(store.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    store.write_bytes(content)


def table_gone(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("DROP TABLE seen")


def no_database(store: Path) -> None:
    store.write_bytes(b"\xff" * 9000)


def a_folder(store: Path) -> None:
    store.unlink()
    store.mkdir()


@pytest.mark.parametrize(
    "garble",
    [
        garbled_pages,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (table_gone, no_database, a_folder)),
    ],
)
def test_a_garbled_store_stops_no_answer_and_is_said(
    scripted: Scripted, garble: Callable[[Path], None]
) -> None:
    scripted.run("ask", "一", "--session", "复诊")
    store = Path(os.environ["MEDCHAT_HOME"]) / "data" / "sessions.db"
    garble(store)
    before = tree(store.parent)
    for more in ((), ("--session", "复诊")):
        for language, words in (("zh", "未保存"), ("en", "not saved")):
            outcome = scripted.run("ask", "你好", *more, MEDCHAT_LANG=language)
            assert (outcome.code, outcome.out) == (0, "你问的是你好\n"), outcome.err
            assert words in outcome.err and outcome.err.count("!!") + outcome.err.count("！！") == 1
            assert "Traceback" not in outcome.err
    refused = scripted.run("ask", "你好", "-c")
    assert (refused.code in (2, 3) and "未保存" in refused.err) or "损坏" in refused.err
    assert scripted.run("chat", stdin="你好\n").out == "你问的是你好\n"
    assert tree(store.parent) == before


def test_one_damaged_session_is_listed_shown_and_gone_on_with(scripted: Scripted) -> None:
    for name in ("坏的", "好的"):
        scripted.run("ask", "一", "--session", name)
    store = Path(os.environ["MEDCHAT_HOME"]) / "data" / "sessions.db"
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE session SET adapters = ?, created = 1e300 WHERE name = '坏的'", ("[" * 99999,)
        )
        connection.execute(
            "UPDATE turn SET finish = 'x' WHERE session_id = (SELECT id FROM session WHERE name = '坏的')"
        )
    listed = scripted.run("sessions", "list", "--all")
    assert listed.code == 0 and len(listed.out.splitlines()) == 2 and listed.out.count("有损坏") == 1
    assert [row["damaged"] for row in scripted.run("sessions", "list", "--all", "--json").one()] == [
        False,
        True,
    ]
    shown = scripted.run("sessions", "show", "坏的")
    assert shown.code == 0 and "你问的是一" in shown.out and shown.out.count("有损坏") == 2
    went_on = scripted.run("ask", "二", "--session", "坏的")
    assert went_on.code == 0 and "无法读取" in went_on.err
    assert scripted.run("sessions", "delete", "坏的", "--yes").code == 0
    assert len(scripted.run("sessions", "list", "--all", "--json").one()) == 1


def test_a_folder_turns_saving_off_only_with_a_line_that_says_so(scripted: Scripted, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "medchat.toml").write_text('save = false\nsystem = "只说好话"\n', encoding="utf-8")
    outcome = scripted.run("ask", "你好", cwd=work)
    assert outcome.code == 0 and not Path(os.environ["MEDCHAT_HOME"]).exists()
    (line,) = [line for line in outcome.err.splitlines() if "medchat.toml" in line]
    assert all(text in line for text in ("save = false", "medchat.toml:1", "system", "medchat.toml:2"))
    assert "medchat.toml" not in scripted.run("ask", "你好", "--system", "x", MEDCHAT_SAVE="1", cwd=work).err


def test_a_misspelt_variable_is_pointed_out_by_every_command_once(scripted: Scripted) -> None:
    for words in (
        ("ask", "你好"),
        ("sessions", "list"),
        ("config", "show"),
        ("doctor",),
        ("plugins", "list", "--json"),
    ):
        err = scripted.run(*words, MEDCHAT_SYSTM="x").err
        assert err.count("MEDCHAT_SYSTEM") == (words != ("doctor",)), (words, err)
