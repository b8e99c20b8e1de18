"""Chats killed in the middle of long answers: no turn whose end was seen is ever lost, and none is half there."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from cli_program import Scripted, read_until
from scripted_backbone import LONG, long_answer

from medchat.paths import sessions_file
from medchat.store import SessionStore

pytest_plugins = ("cli_program",)

#: More questions than any chat of the storm lives to answer.
ASKED = 40
#: Bytes that a chat has said when it is killed: up to some four answers. A time would be fewer on a busy machine.
LONGEST_LIFE = 4 * len("".join(long_answer(LONG)).encode())
#: Seconds from there to the kill: up to some ten pieces of an answer.
DELAY = 0.02


@dataclass(frozen=True)
class Killed:
    """What was seen of one chat. Its last line, if it had begun, is an answer cut off by the kill."""

    ended: list[str]
    begun: str


def killed_chat(scripted: Scripted, name: str, lines: Iterable[str], chance: random.Random) -> Killed:
    """Type all `lines` at once, kill the chat somewhere in its answers, return what it said."""
    with scripted.start("chat", "--session", name) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        process.stdin.flush()
        first = read_until(process, chance.randrange(1, LONGEST_LIFE))
        time.sleep(chance.uniform(0, DELAY))
        process.kill()
        said = (first + process.stdout.read()).decode("utf-8", "ignore")
    assert process.returncode == -signal.SIGKILL
    *ended, begun = said.split("\n")
    return Killed(ended, begun)


def storm(scripted: Scripted, kills: int) -> None:
    """Kill so many chats at random moments and look into the store after each."""
    chance = random.Random(kills)
    inside = acknowledged = 0
    for index in range(kills):
        questions = (f"{LONG}{number}" for number in range(ASKED))
        seen = killed_chat(scripted, f"storm {index}", questions, chance)
        inside += bool(seen.begun)
        acknowledged += len(seen.ended)
        with SessionStore.open() as store:
            records = {record.name: record.id for record in store.list()}
            found = records.get(f"storm {index}")
            turns = [saved.turn for saved in store.turns(found)] if found else []
        assert len(seen.ended) <= len(turns) <= len(seen.ended) + 1
        assert [turn.answer for turn in turns][: len(seen.ended)] == seen.ended
        for number, turn in enumerate(turns):
            assert turn.question == f"{LONG}{number}"
            assert turn.answer == "".join(long_answer(turn.question)) and turn.finish == "stop"
    assert inside >= 0.6 * kills and acknowledged >= 0.5 * kills
    connection = sqlite3.connect(sessions_file())
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_chat_killed_inside_its_answers_loses_no_turn_whose_end_was_seen(scripted: Scripted) -> None:
    storm(scripted, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_inside_long_answers_lose_nothing(scripted: Scripted) -> None:
    storm(scripted, kills=200)


# ---------------------------------------------------------------- edits and forks


def branching_lines(name: str, chance: random.Random) -> list[str]:
    """Questions that no other chat asks, edits of earlier ones, forks and other branches, as they are typed."""
    lines = [f"{LONG}{name}"]
    for number in range(1, ASKED):
        question = f"{LONG}{name}第{number}问"  # two bare numbers may be a blood pressure
        edit = f"/edit 1 q {question}"
        lines += chance.choice([[question], [edit], [edit, "/redo"], ["/fork", question]])
    return lines


def branching_storm(scripted: Scripted, kills: int) -> None:
    """Kill so many chats that edit and fork; each answer whose end was seen must be somewhere, whole."""
    chance = random.Random(kills)
    acknowledged = 0
    for index in range(kills):
        ended = killed_chat(scripted, f"storm {index}", branching_lines(f"第{index}场", chance), chance).ended
        acknowledged += len(ended)
        with SessionStore.open() as store:
            whole = [store.transcript(record.id) for record in store.list()]
        saved = [
            one for session in whole for one in (*session.turns, *(other.saved for other in session.others))
        ]
        assert set(ended) <= {one.turn.answer for one in saved}
        for one in saved:
            assert one.turn.answer == "".join(long_answer(one.turn.question)) and one.turn.finish == "stop"
    assert acknowledged >= 0.5 * kills
    connection = sqlite3.connect(sessions_file())
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_chat_killed_among_edits_and_forks_loses_no_answer_whose_end_was_seen(scripted: Scripted) -> None:
    branching_storm(scripted, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_among_edits_and_forks_lose_nothing(scripted: Scripted) -> None:
    branching_storm(scripted, kills=200)
