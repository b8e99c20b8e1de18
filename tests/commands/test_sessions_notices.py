"""What was said before an answer, wherever saved sessions are read: shown, exported, learned from, imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_program import Call

from medchat.api import Finish, Turn
from medchat.chat.demo_mode import KnownQuestions
from medchat.demo_data import demo_examples
from medchat.language import set_language
from medchat.store import AnswerOrigin, SessionStore

pytest_plugins = ("cli_program",)


def kept(*turns: tuple[Turn, tuple[str, ...]]) -> str:
    """Save turns with the notices before their answers, and return the session's id."""
    with SessionStore.open() as store:
        session = store.create("tiny", "/m").id
        for turn, notices in turns:
            store.append_turn(session, turn, None, AnswerOrigin(notices=notices))
    return session


def exported(call: Call, path: Path, session: str, *flags: str) -> str:
    done = call("sessions", "export", session, "--output", str(path), *flags)
    assert done.code == 0, done.err
    return path.read_text(encoding="utf-8")


def demo_warning(language: str) -> str:
    """Return what the demo says before it answers what it has not learned."""
    set_language(language)
    (warning,) = KnownQuestions(demo_examples()).warnings("量子力学是什么？")
    set_language("zh")
    return warning.text


# ---------------------------------------------------------------- training lines


@pytest.mark.parametrize(("language", "word"), [("zh", "没有意义"), ("en", "means nothing")])
def test_training_lines_teach_no_answer_that_was_cut_off_or_said_to_mean_nothing(
    call: Call, tmp_path: Path, language: str, word: str
) -> None:
    warning = demo_warning(language)
    assert word in warning
    session = kept(
        (Turn("甲", "完整。"), ("请拨打 120。",)),
        (Turn("乙", "到了长度上", Finish.LENGTH), ()),
        (Turn("丙", "断了", Finish.ERROR), ()),
        (Turn("丁", "乱写。"), (warning,)),
    )
    (line,) = exported(call, tmp_path / "a.jsonl", session).splitlines()
    answers = [said for said in json.loads(line)["messages"] if said["role"] == "assistant"]
    assert [said.get("weight", 1) for said in answers] == [1, 0, 0, 0]
    assert "120" not in line and warning not in line
