"""Writes the turns of a conversation into its saved session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from medchat.api import Turn
from medchat.chat.collaborators import rewritten
from medchat.chat.events import AnswerContext, TurnStats
from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.store import (
    AnswerOrigin,
    BranchPoint,
    PlacedTurn,
    SavedTurn,
    SessionRecord,
    SessionStore,
    Transcript,
)


class StoreRecorder:
    """Writes each turn into the session store; the session's row is created with the first turn.

    If the disk fails, or the session was deleted meanwhile, the user is warned once (`warn`) and the
    conversation continues in memory: an answer on the screen is worth more than a crash. If another MedChat
    process writes to the same session, the user is warned once too; no turn of either is lost: a regenerated
    answer then follows the other's turns, and an undo that would remove them is refused.
    """

    def __init__(
        self,
        store: SessionStore,
        create: Callable[[SessionStore], SessionRecord],
        existing: SessionRecord | None,
        warn: Callable[[str], None],
        note_changes: Callable[[SessionStore, SessionRecord], SessionRecord] | None = None,
        origin: Callable[[AnswerContext], AnswerOrigin] | None = None,
        *,
        in_chat: bool = True,
    ) -> None:
        """`note_changes` is called after the first new turn of `existing`, which may now have another model.

        It is also called after `model_changed`.

        `origin` is what produces the answers, saved with each. `in_chat` False: an `ask` writes.
        """
        self._store = store
        self._create = create
        self._record = existing
        self._warn = warn
        self._note_changes = note_changes
        self._noted = existing is None
        self._origin = origin or (lambda context: AnswerOrigin())
        self._in_chat = in_chat
        self._ours: list[PlacedTurn] = []
        if existing:
            self._as_saved(existing)
        self._warned_of_another = False

    @property
    def record(self) -> SessionRecord | None:
        """The saved session, None before its first turn."""
        return self._record

    @property
    def on_disk(self) -> bool:
        """Whether a session was saved, and still is."""
        return self._record is not None and self._store.path is not None

    def save(self, turn: Turn, stats: TurnStats, context: AnswerContext, *, instead_of: int = 0) -> None:
        """Append one turn, replacing that many last ones, in one transaction."""
        store, kept = self._store, False
        with self._or_in_memory():
            if self._record is None:
                self._record = self._create(self._store)
            start = max(0, len(self._ours) - instead_of)
            replaced = self._ours[start:]
            position = self._store.append_turn(
                self._record.id,
                turn,
                stats,
                self._origin(context),
                instead_of=replaced,
                in_chat=self._in_chat,
            )
            del self._ours[start:]
            self._keep(position, turn, expected=replaced[0][0] if replaced else None)
            kept = True
            self._note()
        if not kept and store.path is not None:
            self.save(turn, stats, context, instead_of=instead_of)  # into memory, with the earlier turns

    def extend(self, turn: Turn, stats: TurnStats, context: AnswerContext) -> None:
        """Replace the last turn's answer with the longer one of `turn`, in one transaction."""
        if self._record is None or not self._ours:
            return
        store, kept = self._store, False
        with self._or_in_memory():
            last = self._ours[-1]
            position = self._store.extend_turn(
                self._record.id, turn, stats, self._origin(context), expected=last, in_chat=self._in_chat
            )
            del self._ours[-1]
            self._keep(position, turn, expected=last[0])
            kept = True
            self._note()
        if not kept and store.path is not None:
            self.extend(turn, stats, context)

    def undo(self, count: int) -> None:
        """Undo the last `count` turns. Raises UsageError if another process's are among them."""
        last = self._ours[-count:]
        if self._record is None or not last:
            return
        store, refused, done = self._store, False, False
        with self._or_in_memory():
            refused = not self._store.undo(self._record.id, len(last), expected=last)
            done = True
        if refused:
            raise _of_another()
        if done:
            del self._ours[-count:]
        elif store.path is not None:
            self.undo(count)  # in memory, with the earlier turns

    def redo(self, count: int) -> Sequence[Turn] | None:
        """Redo undone turns, else switch to the next branch; return all turns afterwards, None if there is neither.

        Raises UsageError if another process's turns are among the last.
        """
        if self._record is not None:
            with self._or_in_memory():
                if self._store.restore(self._record.id, count):
                    return self._as_saved(self._record)
        return self._go_to(None)

    def branches(self) -> Sequence[BranchPoint]:
        """Return the places where the conversation branches."""
        if self._record is not None:
            with self._or_in_memory():
                return self._store.branches(self._record.id)
        return ()

    def turns_at(self, point: BranchPoint) -> Sequence[SavedTurn]:
        """Return the turns at a place of `branches`, in the order of its alternatives."""
        with self._or_in_memory():
            return self._store.turns_at(point)
        return ()

    def switch(self, position: int, way: int) -> Sequence[Turn] | None:
        """Switch to that alternative at that place (from 1); return all turns afterwards, None if there is none.

        Raises UsageError if another process's turns are among the last.
        """
        return self._go_to((position, way))

    def _go_to(self, where: tuple[int, int] | None) -> Sequence[Turn] | None:
        mixed = False
        if self._record is not None:
            with self._or_in_memory():
                if self._store.switch(self._record.id, where, expected=self._ours):
                    return self._as_saved(self._record)
                saved = self._store.turns(self._record.id)
                mixed = [(one.position, one.turn) for one in saved] != self._ours
        if mixed:
            raise _of_another()
        return None

    def _as_saved(self, record: SessionRecord) -> tuple[Turn, ...]:
        self._ours = [(saved.position, saved.turn) for saved in self._store.turns(record.id)]
        return tuple(turn for _, turn in self._ours)

    def transcript(self) -> Transcript | None:
        """Return the complete session, branches included, None before its first turn."""
        return None if self._record is None else self._store.transcript(self._record.id)

    def rename(self, name: str) -> str:
        """Rename the session and return the name as saved. Raises what the store raises.

        Raises RuntimeError before the first turn.
        """
        self._record = self._store.rename(self._recorded().id, name)
        return self._record.name or name

    def fork(self, name: str | None) -> SessionRecord:
        """Copy the present conversation into a new session. Raises RuntimeError before its first turn."""
        return self._store.fork(self._recorded().id, name)

    def _recorded(self) -> SessionRecord:
        if self._record is None:
            raise RuntimeError("nothing was recorded yet")
        return self._record

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Change every text of the saved session, so that the old words are not on the disk any more.

        Raises MedchatError if that fails: the user must not believe that they are gone.
        """
        if self._record is not None:
            self._store.rewrite(self._record.id, change)
            self._ours = [(position, rewritten(turn, change)) for position, turn in self._ours]

    def model_changed(self) -> None:
        """Update the session's row with its next turn."""
        self._noted = False

    def _note(self) -> None:
        if not self._noted and self._note_changes is not None and self._record is not None:
            self._record = self._note_changes(self._store, self._record)
        self._noted = True

    def _keep(self, position: int, turn: Turn, *, expected: int | None) -> None:
        if position != (expected or (self._ours[-1][0] if self._ours else 0) + 1):
            self._tell_of_another()
        self._ours.append((position, turn))

    def _tell_of_another(self) -> None:
        if not self._warned_of_another:
            self._warned_of_another = True
            self._warn(
                say(
                    "另一个 MedChat 也在写入这个会话：双方的问答会按时间先后混在一起。要分开，请输入 /新建",
                    "another MedChat is writing to this session too: the two are being mixed. To separate them: /new",
                )
            )

    @contextmanager
    def _or_in_memory(self) -> Iterator[None]:
        """Within this block a failure of the store is reported, and the conversation continues in memory."""
        try:
            yield
        except MedchatError as error:
            self._continue_in_memory()
            self._warn(not_saved(error))

    def _continue_in_memory(self) -> None:
        """Continue in a store in memory, so that undo, export and save work; filled from the file if readable."""
        ours, record = self._ours, self._record
        said = None
        if record is not None and ours:
            with suppress(MedchatError):
                said = self._store.transcript(record.id)
            if said is None or [(saved.position, saved.turn) for saved in said.turns] != ours:
                now = datetime.now(UTC)
                said = Transcript(record, tuple(SavedTurn(at, turn, now) for at, turn in ours))
        self._store, self._record, self._ours, self._noted = SessionStore.unsaved(), None, [], True
        if said is not None:
            (self._record,) = self._store.add([said])
            self._as_saved(self._record)


def _of_another() -> UsageError:
    return UsageError(
        say(
            "另一个 MedChat 也在写入这个会话，最后几轮不全是这里的对话，没有任何改动",
            "another MedChat is writing to this session too, and the last turns are not all from here:"
            " nothing was changed",
        ),
        say("要分开，请输入 /新建", "to separate them: /new"),
    )


def not_saved(error: MedchatError) -> str:
    """Return the message that nothing is saved from now on, and why."""
    return say(
        f"！！未保存：{error.what}。可以继续对话，但从这一轮起不再写入磁盘。{error.remedy}",
        f"!! not saved: {error.what}. You can go on, but from this turn on nothing is written to disk. {error.remedy}",
    )
