"""Chats killed in the middle of long answers: no turn whose end was seen is ever lost, and none is half there."""

from __future__ import annotations

import json
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
#: Seconds from one export to the kill: up to about as many as the next takes.
EXPORT_DELAY = 0.01


@dataclass(frozen=True)
class Killed:
    """What was seen of one chat. Its last line, if it had begun, is an answer cut off by the kill.

    `aside` is what it said beside its answers.
    """

    ended: list[str]
    begun: str
    aside: str


def killed_chat(
    scripted: Scripted, name: str, lines: Iterable[str], chance: random.Random, exports: int = 0
) -> Killed:
    """Type all `lines` at once, kill the chat somewhere in its answers, return what it said.

    Every other time that there are `exports`, kill it in the one after some of them.
    """
    with scripted.start("chat", "--session", name) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        process.stdin.flush()
        first = aside = b""
        if exports and chance.random() < 0.5:
            aside = read_exports(process, chance.randrange(1, exports))
            time.sleep(chance.uniform(0, EXPORT_DELAY))
        else:
            first = read_until(process, chance.randrange(1, LONGEST_LIFE))
            time.sleep(chance.uniform(0, DELAY))
        process.kill()
        said = (first + process.stdout.read()).decode("utf-8", "ignore")
        aside += process.stderr.read()
    assert process.returncode == -signal.SIGKILL
    *ended, begun = said.split("\n")
    return Killed(ended, begun, aside.decode("utf-8", "ignore"))


def read_exports(process: subprocess.Popen[bytes], count: int) -> bytes:
    """Return what the chat says beside its answers up to its export of that number."""
    assert process.stderr is not None
    said = b""
    while said.count("已导出".encode()) < count:
        said += process.stderr.read(1)
    return said


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


# ---------------------------------------------------------------- edits, forks and exports


SUFFIXES = (".json", ".jsonl", ".md", ".html")


def branching_lines(name: str, folder: Path, chance: random.Random) -> list[str]:
    """Questions that no other chat asks, edits, forks, other branches and exports, as they are typed."""
    lines = [f"{LONG}{name}", *(f"/export {folder}/{name}{suffix}" for suffix in SUFFIXES)]
    for number in range(1, ASKED):
        question = f"{LONG}{name}第{number}问"  # two bare numbers may be a blood pressure
        edit = f"/edit 1 q {question}"
        exports = [f"/export {folder}/{name}-{number}{suffix}" for suffix in SUFFIXES]
        again = f"/export {folder}/{name}.json --overwrite"
        ways = [[question], [edit], [edit, "/redo"], ["/fork", question], [question, *exports], [edit, again]]
        lines += chance.choice(ways)
    return lines


def answers_of(path: Path) -> list[str]:
    """Return the answers in an export, all that its form can hold. Fails where it is not whole."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        session = json.loads(text)
        return [turn["answer"] for turn in (*session["log"], *session["branches"])]
    if path.suffix == ".jsonl":
        (line,) = text.splitlines()
        return [one["content"] for one in json.loads(line)["messages"] if one["role"] == "assistant"]
    assert text.endswith("</html>\n" if path.suffix == ".html" else "；\n"), text[-200:]
    return re.findall(rf"(?:> |>)({LONG}[^：\n]*：(?:第\d\d；)+)", text)


def branching_storm(scripted: Scripted, folder: Path, kills: int) -> None:
    """Kill so many chats that edit, fork and export.

    Each answer whose end was seen must be somewhere, whole; each export is whole or absent, and there if it was said.
    """
    chance = random.Random(kills)
    acknowledged = exported = whole_exports = 0
    for index in range(kills):
        name = f"第{index}场"
        lines = branching_lines(name, folder, chance)
        seen = killed_chat(scripted, f"storm {index}", lines, chance, len(SUFFIXES))
        acknowledged += len(seen.ended)
        with SessionStore.open() as store:
            whole = [store.transcript(record.id) for record in store.list()]
        saved = [
            one for session in whole for one in (*session.turns, *(other.saved for other in session.others))
        ]
        assert set(seen.ended) <= {one.turn.answer for one in saved}
        for one in saved:
            assert one.turn.answer == "".join(long_answer(one.turn.question)) and one.turn.finish == "stop"
        said = {Path(place) for place in re.findall("(?m)^▌? ?已导出：(/[^（\n]+)", seen.aside)}
        there = {*folder.glob(f"{name}*")}
        assert said <= there
        for path in there:
            answers = answers_of(path)
            assert answers and set(answers) <= {one.turn.answer for one in saved}
        exported, whole_exports = exported + len(said), whole_exports + len(there)
    assert acknowledged >= 0.5 * kills and 0.3 * kills <= exported <= whole_exports
    connection = sqlite3.connect(sessions_file())
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_chat_killed_among_edits_forks_and_exports_loses_no_answer_whose_end_was_seen(
    scripted: Scripted, tmp_path: Path
) -> None:
    branching_storm(scripted, tmp_path, kills=6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_among_edits_forks_and_exports_lose_nothing(
    scripted: Scripted, tmp_path: Path
) -> None:
    branching_storm(scripted, tmp_path, kills=200)
