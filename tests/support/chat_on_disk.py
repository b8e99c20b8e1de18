"""The sessions file in tests of the real chat on a terminal."""

from __future__ import annotations

from pseudo_terminal import Terminal

from medchat.api import Turn
from medchat.store import SessionRecord, SessionStore

#: A title and a file name with terminal escapes that imitate the program's own lines.
HOSTILE = "\x1b]52;c;aGk=\x07\x1b[2J▌ 假提示\u202e"


def store_session(
    question: str, name: str | None = None, model: str = "/模型/别的", turns: int = 1
) -> SessionRecord:
    with SessionStore.open() as store:
        record = store.create("chatglm", model, name=name)
        for number in range(turns):
            store.append_turn(record.id, Turn(f"{question}{number or ''}", "旧回答"))
        return record


def sessions() -> dict[str, list[str]]:
    """The questions of every saved session, by its title."""
    with SessionStore.open() as store:
        return {
            record.title: [saved.turn.question for saved in store.turns(record.id)] for record in store.list()
        }


def converse(screen: Terminal, *questions: str) -> None:
    for question in questions:
        screen.enter(question)
        screen.wait_for(f"你问的是{question}")
