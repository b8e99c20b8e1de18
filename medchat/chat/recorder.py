"""Which saved session a command goes on with, and writing its turns there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from medchat import paths
from medchat.api import Conversation, Turn
from medchat.chat.collaborators import rewritten
from medchat.chat.events import AnswerContext, TurnStats
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.language import say
from medchat.store import (
    AnswerOrigin,
    BranchPoint,
    PlacedTurn,
    SessionKind,
    SessionRecord,
    SessionStore,
    Transcript,
)


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """Which saved session to go on with: by name (opened or created), the latest, or one picked by id."""

    name: str | None = None
    latest: bool = False
    resume: str | None = None
    save: bool = True
    kind: SessionKind = SessionKind.CHAT


class StoreRecorder:
    """Writes each turn into the session store; the session's row is made with its first turn.

    If the disk fails, or the session was deleted meanwhile, the user is warned once (`warn`) and the
    conversation goes on unsaved: an answer on the screen is worth more than a crash. If another MedChat
    writes to the same session, that is said once too; no turn of either is lost: an answer given again
    then follows the other's turns, and an undo that would take them is refused.
    """

    def __init__(
        self,
        store: SessionStore,
        create: Callable[[SessionStore], SessionRecord],
        existing: SessionRecord | None,
        warn: Callable[[str], None],
        note_changes: Callable[[SessionStore, SessionRecord], SessionRecord] | None = None,
        origin: Callable[[AnswerContext], AnswerOrigin] | None = None,
    ) -> None:
        """`note_changes` is called once `existing` has got a turn: it may now go on with another model.

        So it is after `model_changed`.

        `origin` says what produces the answers, kept beside each.
        """
        self._store = store
        self._create = create
        self._record = existing
        self._warn = warn
        self._note_changes = note_changes
        self._noted = existing is None
        self._origin = origin or (lambda context: AnswerOrigin())
        self._ours: list[PlacedTurn] = []
        if existing:
            self._as_saved(existing)
        self._told_of_another = False

    @property
    def record(self) -> SessionRecord | None:
        """The saved session, None before its first turn."""
        return self._record

    @property
    def on_disk(self) -> bool:
        """Whether a session was saved, and still is."""
        return self._record is not None and self._store.path is not None

    def save(self, turn: Turn, stats: TurnStats, context: AnswerContext, *, instead_of: int = 0) -> None:
        """Append one turn, in the place of that many last ones, in one transaction."""
        with self._told():
            if self._record is None:
                self._record = self._create(self._store)
            start = max(0, len(self._ours) - instead_of)
            replaced = self._ours[start:]
            position = self._store.append_turn(
                self._record.id, turn, stats, self._origin(context), instead_of=replaced
            )
            del self._ours[start:]
            self._keep(position, turn, expected=replaced[0][0] if replaced else None)
            self._note()

    def extend(self, turn: Turn, stats: TurnStats, context: AnswerContext) -> None:
        """Put the longer answer of `turn` into the last one, in one transaction."""
        with self._told():
            if self._record is not None and self._ours:
                last = self._ours.pop()
                position = self._store.extend_turn(
                    self._record.id, turn, stats, self._origin(context), expected=last
                )
                self._keep(position, turn, expected=last[0])
                self._note()

    def undo(self, count: int) -> None:
        """Take back the last `count` turns. Raises UsageError where another MedChat's are among them."""
        last = self._ours[-count:]
        if self._record is None or not last:
            return
        refused = False
        with self._told():
            refused = not self._store.undo(self._record.id, len(last), expected=last)
        if refused:
            raise _of_another()
        del self._ours[-count:]

    def redo(self, count: int) -> Sequence[Turn] | None:
        """Bring back undone turns, else the next branch; return all turns as they then are, None for neither."""
        if self._record is not None:
            with self._told():
                found = self._store.restore(self._record.id, count)
                if found or self._store.switch(self._record.id, expected=self._ours):
                    return self._as_saved(self._record)
        return None

    def branches(self) -> Sequence[BranchPoint]:
        """Return the places where the conversation has gone on in several ways."""
        if self._record is not None:
            with self._told():
                return self._store.branches(self._record.id)
        return ()

    def switch(self, position: int, way: int) -> Sequence[Turn] | None:
        """Go on from that alternative at that place (from 1); return all turns as they then are, None for no such."""
        if self._record is not None:
            with self._told():
                if self._store.switch(self._record.id, (position, way), expected=self._ours):
                    return self._as_saved(self._record)
        return None

    def _as_saved(self, record: SessionRecord) -> tuple[Turn, ...]:
        self._ours = [(saved.position, saved.turn) for saved in self._store.turns(record.id)]
        return tuple(turn for _, turn in self._ours)

    def transcript(self) -> Transcript | None:
        """Return the session whole, branches included, None before its first turn."""
        return None if self._record is None else self._store.transcript(self._record.id)

    def rename(self, name: str) -> str:
        """Give the session another name and return it as it is kept. Only after its first turn; see the store."""
        if self._record is not None:
            self._record = self._store.rename(self._record.id, name)
        return name

    def fork(self, name: str | None) -> SessionRecord:
        """Copy the conversation as it stands into a session of its own. Raises RuntimeError before its first turn."""
        if self._record is None:
            raise RuntimeError("nothing was recorded yet")
        return self._store.fork(self._record.id, name)

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Change every text of the saved session, so that the former words are not on the disk any more.

        Raises MedchatError where that fails: whoever asked for it must not believe that they are gone.
        """
        if self._record is not None:
            self._store.rewrite(self._record.id, change)
            self._ours = [(position, rewritten(turn, change)) for position, turn in self._ours]

    def model_changed(self) -> None:
        """Have the session's row brought up to date with its next turn."""
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
        if not self._told_of_another:
            self._told_of_another = True
            self._warn(
                say(
                    "另一个 MedChat 也在写入这个会话：双方的问答会按时间先后混在一起。要分开，请输入 /新建",
                    "another MedChat is writing to this session too: the two get mixed. To part them: /new",
                )
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except MedchatError as error:
            self._store, self._record, self._ours = SessionStore.unsaved(), None, []
            self._noted = True
            self._warn(_not_saved(error))


def _of_another() -> UsageError:
    return UsageError(
        say(
            "另一个 MedChat 也在写入这个会话，最后几轮不全是这里的对话，没有撤销",
            "another MedChat writes to this session too, and the last turns are not all from here:"
            " nothing was taken back",
        ),
        say("要分开，请输入 /新建", "to separate them: /new"),
    )


def _not_saved(error: MedchatError) -> str:
    return say(
        f"！！未保存：{error.what}。可以继续对话，但从这一轮起不再写入磁盘。{error.remedy}",
        f"!! not saved: {error.what}. You can go on, but from this turn on nothing is written to disk. {error.remedy}",
    )


def open_store(*, save: bool, warn: Callable[[str], None]) -> SessionStore:
    """Open the sessions file, or a store in memory: for `--no-save`, and (said loudly) where the file fails."""
    if not save:
        return SessionStore.unsaved(paths.sessions_file())
    try:
        return SessionStore.open()
    except MedchatError as error:
        warn(_not_saved(error))
        return SessionStore.unsaved()


def session_to_go_on_with(
    store: SessionStore, choice: SessionChoice, warn: Callable[[str], None]
) -> tuple[SessionStore, SessionRecord | None]:
    """Return the saved session that the flags ask for, and the store to go on with.

    That is one in memory where the file cannot be read and the flags ask for no words of it: an answer
    is worth more than its record. Raises what `choose_session` raises.
    """
    try:
        record = choose_session(store, choice)
    except CheckpointError as error:
        if choice.latest or choice.resume is not None:
            raise
        store.close()
        warn(_not_saved(error))
        return SessionStore.unsaved(), None
    if record is not None and record.damaged:
        warn(
            say(
                f"会话 {record.name or record.id} 的记录有一部分无法读取，以空白代替",
                f"a part of the record of session {record.name or record.id} cannot be read and is left empty",
            )
        )
    return store, record


def choose_session(store: SessionStore, choice: SessionChoice) -> SessionRecord | None:
    """Return the saved session that the flags ask for, None for a new one. Raises UsageError where it is not there."""
    if sum([choice.name is not None, choice.latest, choice.resume is not None]) > 1:
        raise UsageError(
            say(
                "--session、--continue、--resume 只能用一个",
                "use only one of --session, --continue, --resume",
            ),
            "medchat sessions list",
        )
    if not choice.save and (choice.latest or choice.resume is not None):
        raise UsageError(
            say("使用 --no-save 时不能继续旧会话", "--no-save cannot go on with a saved session"),
            say("去掉 --no-save", "leave out --no-save"),
        )
    if choice.name is not None:
        return store.named(choice.name)
    if choice.latest:
        latest = store.latest()
        if latest is None:
            raise UsageError(say("还没有保存的会话", "there is no saved session yet"), "medchat chat")
        return latest
    if choice.resume == "":
        raise UsageError(
            say("请指定要继续的会话编号", "name the session to continue"),
            say("查看已有会话：medchat sessions list", "list them: medchat sessions list"),
        )
    return None if choice.resume is None else store.get(choice.resume)


def conversation_of(store: SessionStore, record: SessionRecord | None, system: str) -> Conversation:
    """Return what was said in the saved session, or an empty conversation."""
    if record is None:
        return Conversation(system=system)
    saved = store.conversation(record.id)
    return Conversation(saved.turns, system or saved.system)
