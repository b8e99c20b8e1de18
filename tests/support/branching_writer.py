"""A program that adds, edits, undoes, switches and forks turns at random for ever, and prints a line after each step.

Its arguments: the sessions file and a seed. The same seed gives the same steps, so that a test can repeat
them in memory and compare.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from medchat.api import Turn
from medchat.store import SessionStore


class Steps:
    """The steps of one seed on an empty store."""

    def __init__(self, store: SessionStore, seed: int) -> None:
        self._store = store
        self._chance = random.Random(seed)
        self._count = 0
        self._session = store.create("echo", "none", name="0").id

    def take(self) -> None:
        """Take the next step: one writing call."""
        store, session, chance = self._store, self._session, self._chance
        self._count += 1
        turns = [(saved.position, saved.turn) for saved in store.turns(session)]
        turn = Turn(f"问{self._count}", "字" * chance.randint(0, 20_000))
        step = chance.choice(("say", "say", "edit", "edit", "go on", "undo", "restore", "switch", "fork"))
        if step == "edit" and turns:
            store.append_turn(session, turn, instead_of=turns[-chance.randint(1, len(turns)) :])
        elif step == "go on" and turns:
            longer = Turn(turns[-1][1].question, turns[-1][1].answer + "续")
            store.extend_turn(session, longer, expected=turns[-1])
        elif step == "undo":
            store.undo(session, chance.randint(1, 3))
        elif step == "restore":
            store.restore(session, chance.randint(1, 3))
        elif step == "switch":
            store.switch(session)
        elif step == "fork":
            self._session = store.fork(session, str(self._count)).id
        else:
            store.append_turn(session, turn)


def main(path: Path, seed: int) -> None:
    """Write until killed."""
    steps = Steps(SessionStore.open(path), seed)
    print("ready", flush=True)
    while True:
        steps.take()
        print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
