"""`/redact`: what identifies a person leaves the conversation and the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Scripted, saved_turns

from medchat.api import Turn
from medchat.paths import sessions_file
from medchat.store import SessionStore

pytest_plugins = ("cli_program",)
pytestmark = pytest.mark.safety

SAID = "我叫张三丰，手机13812345678，身份证11010519491231002X，胸闷"
MASKED = "我叫[姓名]，手机[电话]，身份证[证件号]，胸闷"
SECRETS = [word.encode() for word in ("张三丰", "13812345678", "11010519491231002X")]


def bytes_on_disk() -> bytes:
    """Return every byte of the sessions file, its log and its index."""
    folder = sessions_file().parent
    return b"".join(path.read_bytes() for path in sorted(folder.glob("sessions.db*")))


def test_it_masks_what_was_said_in_memory_on_disk_and_in_the_editors_lines(scripted: Scripted) -> None:
    with SessionStore.open() as store:
        store.remember_input(SAID)
    told = scripted.run("chat", stdin=f"{SAID}\n头痛\n/脱敏\n/历史 1\n/redact\n")
    assert told.code == 0
    assert (
        "姓名 2、" not in told.err and "证件号 2、电话 2、姓名 2" in told.err
    )  # the model repeats the question
    assert f"› {MASKED}" in told.err and "没有找到要脱敏的内容" in told.err
    first, second = (saved.turn for saved in saved_turns())
    assert first == Turn(MASKED, f"你问的是{MASKED}") and second.question == "头痛"
    assert not [secret for secret in SECRETS if secret in bytes_on_disk()]
    with SessionStore.open() as store:
        assert store.recent_inputs() == (MASKED,)


def test_it_masks_and_counts_what_is_on_other_branches_too(scripted: Scripted) -> None:
    told = scripted.run("chat", stdin=f"{SAID}\n/edit 1 q 头痛\n/redact\n/branch 1 1\n/history 1\n")
    assert told.code == 0 and "证件号 2、电话 2、姓名 2" in told.err
    assert f"› {MASKED}" in told.err
    assert not [secret for secret in SECRETS if secret in bytes_on_disk()]


def test_without_a_saved_session_it_masks_the_conversation_alone(scripted: Scripted) -> None:
    told = scripted.run("chat", "--no-save", stdin=f"{SAID}\n/redact\n/history 1\n")
    assert told.code == 0 and f"› {MASKED}" in told.err
    nothing = scripted.run("chat", "--no-save", stdin="/redact\n")
    assert nothing.code == 0 and "没有找到要脱敏的内容" in nothing.err


def test_what_is_asked_next_and_answered_again_goes_on_from_the_masked_words(scripted: Scripted) -> None:
    told = scripted.run("chat", stdin=f"{SAID}\n/脱敏\n/重答\n/撤销\n头痛\n")
    assert told.code == 0 and f"你问的是{MASKED}" in told.out
    (turn,) = (saved.turn for saved in saved_turns())
    assert turn.question == "头痛"
    assert not [secret for secret in SECRETS if secret in bytes_on_disk()]


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore.open(tmp_path / "sessions.db")


def test_the_store_changes_one_session_undone_turns_included_and_leaves_the_others(
    store: SessionStore,
) -> None:
    with store:
        mine, other = store.create("b", "m", system="我叫王五"), store.create("b", "m")
        for record in (mine, other):
            store.append_turn(record.id, Turn("一", "张三"))
            store.append_turn(record.id, Turn("张三", "二"))
        store.undo(mine.id)
        assert store.rewrite(mine.id, lambda text: text.replace("张三", "某人")) == 2
        assert store.restore(mine.id)[0].turn == Turn("某人", "二")
        assert [saved.turn for saved in store.turns(mine.id)] == [Turn("一", "某人"), Turn("某人", "二")]
        assert [saved.turn for saved in store.turns(other.id)] == [Turn("一", "张三"), Turn("张三", "二")]
        assert store.rewrite(mine.id, str.strip) == 0
        store.rewrite(mine.id, lambda text: text.replace("王五", "某人"))
        assert store.get(mine.id).system == "我叫某人"


def test_the_former_words_are_off_the_disk_while_the_store_is_still_open(store: SessionStore) -> None:
    with store:
        assert store.path is not None
        record = store.create("b", "m")
        store.append_turn(record.id, Turn("张三" * 500, "李四" * 500))
        store.rewrite(record.id, lambda text: "某人")
        left = b"".join(path.read_bytes() for path in store.path.parent.glob("sessions.db*"))
        assert "某人".encode() in left
        assert "张三".encode() not in left and "李四".encode() not in left
