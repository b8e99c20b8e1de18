"""Sessions out to a file, in again and out once more: the same file; and what fine-tuning counts of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from scripted_recipe import Pupil

from medchat import medical_safety
from medchat.api import Conversation, Finish, Turn
from medchat.store import AnswerOrigin, SavedTurn, SessionKind, SessionStore

pytest_plugins = ("cli_program",)


def _chat(store: SessionStore) -> str:
    return store.create("llama", "/m/甲", ("/a/乙",), "bare", "你是医生。\n请简短。").id


def stopped(store: SessionStore) -> str:
    """A conversation whose answers ended in every way."""
    session = _chat(store)
    for finish in (Finish.STOP, Finish.CANCELLED, Finish.LENGTH, Finish.ERROR, Finish.STOP):
        store.append_turn(session, Turn(f"问 {finish}\n 第二行", f" 答 {finish}\n\n", finish))
    return session


def branched(store: SessionStore) -> str:
    """A conversation with branches of branches and undone turns."""
    session = _chat(store)
    for question in "甲乙丙丁":
        store.append_turn(session, Turn(question, "答"))
    for count in (3, 1, 2):
        expected = [(saved.position, saved.turn) for saved in store.turns(session)][-count:]
        store.append_turn(session, Turn(f"另{count}", "答"), instead_of=expected)
    store.append_turn(session, Turn("戊", "答"))
    store.undo(session)
    return session


def noticed(store: SessionStore) -> str:
    """A conversation with notices of ours, whose words are never learned, and an answer that the user rewrote."""
    session = _chat(store)
    (notice, *_) = medical_safety.advise(Conversation(), "胸口剧痛，喘不上气")
    origin = AnswerOrigin("llama", "/m/甲", notices=(notice.text,), medchat="0.1.0", language="zh")
    store.append_turn(session, Turn("胸口剧痛，喘不上气", "请拨打 120。"), None, origin)
    store.append_turn(session, Turn("然后呢", "休息。"), None, AnswerOrigin("llama", "/m/甲", edited=True))
    return session


def odd(store: SessionStore) -> str:
    """Words that a file must hold to the letter, and an answer of nothing."""
    session = _chat(store)
    for text in ("\u2028\u0085两行", "\ufeff头", "emoji 👨\u200d👩\u200d👧", '"\\{}</script>', "\x1b[2J\x00"):
        store.append_turn(session, Turn(text, text))
    store.append_turn(session, Turn("没有回答的", "  "))
    return session


def begun_by_the_answerer(store: SessionStore) -> str:
    """A conversation of another program, as it was imported."""
    session = _chat(store)
    for question, answer in (("", "您好，我是医生。"), ("头痛", "休息。")):
        store.append_turn(session, Turn(question, answer))
    return session


MAKERS = (stopped, branched, noticed, odd, begun_by_the_answerer)


@pytest.fixture
def saved() -> dict[str, str]:
    """Return the id of a session of each maker."""
    with SessionStore.open() as store:
        return {maker.__name__: maker(store) for maker in MAKERS}


def written(call: Call, path: Path, *sessions: str) -> str:
    done = call("sessions", "export", *sessions, "--output", str(path))
    assert done.code == 0, done.err
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("maker", [maker.__name__ for maker in MAKERS])
def test_out_in_and_out_again_is_the_same_file(
    call: Call,
    saved: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    maker: str,
    suffix: str,
) -> None:
    first = written(call, tmp_path / f"first{suffix}", saved[maker])
    for home in ("second", "third"):
        monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / home))
        done = call("sessions", "import", str(tmp_path / f"first{suffix}"))
        assert done.code == 0, done.err
        assert written(call, tmp_path / f"{home}{suffix}", saved[maker]) == first
        monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "again"))
        call("sessions", "delete", "--all", "--yes")


def test_a_conversation_without_a_turn_makes_no_training_line(
    call: Call, saved: dict[str, str], tmp_path: Path
) -> None:
    with SessionStore.open() as store:
        store.undo(saved["stopped"], 9)
    lines = written(call, tmp_path / "a.jsonl", saved["stopped"], saved["noticed"])
    assert lines.count("\n") == 1 and "120" in lines
    refused = call("sessions", "export", saved["stopped"], "--output", str(tmp_path / "b.jsonl"))
    assert refused.code == 2 and "没有可以训练的问答" in refused.err and not (tmp_path / "b.jsonl").exists()
    assert len(json.loads(written(call, tmp_path / "c.json", saved["stopped"]))["branches"]) == 5


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_several_sessions_go_round_together(
    call: Call, saved: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    first = written(call, tmp_path / f"a{suffix}", *saved.values())
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "other"))
    assert call("sessions", "import", str(tmp_path / f"a{suffix}")).code == 0
    assert written(call, tmp_path / f"b{suffix}", *saved.values()) == first
    with SessionStore.open() as store:
        assert {record.kind for record in store.list()} == {SessionKind.IMPORTED}


# ---------------------------------------------------------------- what fine-tuning counts


@pytest.fixture
def counted(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that returns what `sft --dry-run` says of a data file."""
    pupil = Pupil(tmp_path / "pupil")
    monkeypatch.syspath_prepend(pupil.site)

    def count(path: Path) -> dict[str, Any]:
        words = list(pupil.flags)
        words[words.index("--data") + 1] = str(path)
        done = call(*words, "--val-size", "0", "--dry-run", "--json")
        assert done.code == 0, done.err
        return done.one()  # type: ignore[no-any-return]

    return count


def learnable(turns: tuple[SavedTurn, ...]) -> list[Turn]:
    """Return the turns that ended by themselves, of those with a question and an answer."""
    said = [saved.turn for saved in turns if saved.turn.question.strip() and saved.turn.answer.strip()]
    return [turn for turn in said if turn.finish is Finish.STOP]


@pytest.mark.parametrize("maker", [maker.__name__ for maker in MAKERS])
def test_fine_tuning_counts_the_turns_that_are_to_be_learned(
    call: Call,
    saved: dict[str, str],
    tmp_path: Path,
    counted: Any,
    monkeypatch: pytest.MonkeyPatch,
    maker: str,
) -> None:
    with SessionStore.open() as store:
        turns = store.turns(saved[maker])
    written(call, tmp_path / "first.jsonl", saved[maker])
    first = counted(tmp_path / "first.jsonl")
    assert first["train"] == len(learnable(turns))
    (data,) = first["data"]
    assert (data["records"], data["bad"], data["unused"]) == (1, 0, {})
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "other"))
    assert call("sessions", "import", str(tmp_path / "first.jsonl")).code == 0
    written(call, tmp_path / "second.jsonl", saved[maker])
    assert counted(tmp_path / "second.jsonl")["train"] == first["train"]


def test_no_notice_mark_or_stopped_answer_is_learned_text(
    call: Call, saved: dict[str, str], tmp_path: Path
) -> None:
    text = written(call, tmp_path / "a.jsonl", *saved.values())
    learned = [
        message["content"]
        for line in text.split("\n")[:-1]
        for message in json.loads(line)["messages"]
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    assert learned and not any(
        mark in said for said in learned for mark in (medical_safety.ai_mark(), "危险")
    )
    assert not any(str(finish) in said for said in learned for finish in ("cancelled", "length", "error"))


def test_sessions_in_a_file_of_another_program_keep_what_is_not_to_be_learned(
    call: Call, tmp_path: Path
) -> None:
    messages = [
        {"role": "user", "content": "头痛"},
        {"role": "assistant", "content": "半句", "weight": 0},
        {"role": "user", "content": "咳嗽"},
        {"role": "assistant", "content": "喝水。", "weight": 1},
    ]
    (tmp_path / "in.json").write_text(json.dumps({"messages": messages}), encoding="utf-8")
    assert call("sessions", "import", str(tmp_path / "in.json")).code == 0
    with SessionStore.open() as store:
        (record,) = store.list()
        ends = [saved.turn.finish for saved in store.turns(record.id)]
    assert ends == [Finish.CANCELLED, Finish.STOP]
