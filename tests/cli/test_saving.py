"""What `medchat ask` leaves on disk, and what `--no-save` does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_program import PAIRS, Call, Scripted, copy_of, saved_turns, tree

pytest_plugins = ("cli_program",)

QUESTION = next(iter(PAIRS))


def test_no_save_leaves_nothing_anywhere(scripted: Scripted, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    home = Path(os.environ["MEDCHAT_HOME"])
    outcome = scripted.run("ask", "秘密的问题", "--no-save", cwd=work, HOME=str(work), TMPDIR=str(work))
    assert outcome.code == 0
    assert not home.exists() and tree(work) == {}


def test_no_save_changes_no_byte_of_what_was_saved_before(scripted: Scripted, tmp_path: Path) -> None:
    home = Path(os.environ["MEDCHAT_HOME"])
    scripted.run("ask", "你好")
    before = tree(home)
    unsaved = scripted.run("ask", "秘密的问题", "--no-save", "--json")
    assert unsaved.one()["session"] is None
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
    assert "没有保存" in outcome.err
