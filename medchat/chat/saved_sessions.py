"""Saved sessions within a chat: saving, naming, loading, forking, searching."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medchat import medical_safety
from medchat.api import Conversation
from medchat.chat.conversation import PreparedChat
from medchat.chat.session import ChatSession
from medchat.chat.session_choice import SessionChoice, conversation_of
from medchat.errors import UsageError
from medchat.language import say
from medchat.store import FoundTurn, SavedTurn, SessionFilter, SessionRecord, SessionStore, Transcript
from medchat.store.database import copied_answer
from medchat.whole_file import write_whole_file

#: Characters of the first question that are shown for a session without a name.
_TITLE = 16


class _Stopped(Exception):
    """The user stopped waiting."""


class SavedSessions:
    """The saved sessions for a chat. Every call is made in the thread that answers."""

    def __init__(self, prepared: PreparedChat) -> None:
        self._prepared = prepared

    @property
    def on_disk(self) -> bool:
        """Whether the chat is saved (no `--no-save`)."""
        return self._prepared.store.path is not None

    @property
    def answering(self) -> tuple[str, str]:
        """The backbone and the model that answer, as in each turn's origin."""
        return self._prepared.answering

    def new(self, session: ChatSession) -> ChatSession:
        """Return a new conversation with the same model and settings."""
        self._choose(None)
        return self._with(session, Conversation(system=session.conversation.system), None)

    def recent(self, limit: int) -> tuple[SessionRecord, ...]:
        """Return the saved chats, the last changed first. Raises UsageError with `--no-save`."""
        self._need_disk()
        return self._prepared.store.list(SessionFilter(with_asks=False), limit=limit)

    def load(self, session: ChatSession, reference: str) -> ChatSession:
        """Continue another saved session, by id, name or prefix of an id, with the present model.

        Raises UsageError for none or several, and with `--no-save`.
        """
        self._need_disk()
        record = self._prepared.store.get(reference)
        return self._on(session, record)

    def fork(self, session: ChatSession, name: str | None) -> ChatSession:
        """Continue in a copy of the conversation. Raises UsageError if it is empty."""
        recorder = self._prepared.recorder_in_use
        if recorder is None or recorder.record is None:
            raise UsageError(
                say("还没有可以分叉的对话", "there is no conversation to copy yet"),
                say("先问一个问题", "ask one first"),
            )
        return self._on(session, recorder.fork(name))

    def rename(self, name: str) -> str:
        """Name the conversation, and its session once it has a turn, and return the name as saved.

        Raises UsageError if it is taken or cannot be a name.
        """
        recorder = self._prepared.recorder_in_use
        if recorder is not None and recorder.record is not None:
            return recorder.rename(name)
        name = self._prepared.store.free_name(name)
        self._prepared.choice = SessionChoice(name=name, save=self._prepared.choice.save)
        return name

    def save(self, session: ChatSession, name: str | None) -> ChatSession:
        """Save a conversation that was in memory to disk, branches included, and continue there.

        Raises UsageError if the name is taken or cannot be a name.
        """
        recorder = self._prepared.recorder_in_use
        held = recorder.transcript() if recorder is not None else None
        store = self._prepared.store if self.on_disk else SessionStore.open()
        name = name or (held.record.name if held else None)
        name = store.free_name(name) if name else None
        self._prepared.store = store
        self._prepared.choice = SessionChoice(name=name)
        if held is None:
            return replace(session, recorder=self._prepared.recorder())
        (record,) = store.add([replace(held, record=replace(held.record, name=name))])
        self._prepared.record = record
        return replace(session, recorder=self._prepared.recorder(record))

    def saved(self) -> SessionRecord | None:
        """Return the present session on disk, None if nothing was saved yet."""
        return self._prepared.saved_session()

    def transcript(self) -> Transcript:
        """Return the complete conversation, branches included. Raises UsageError if it is empty."""
        recorder = self._prepared.recorder_in_use
        found = recorder.transcript() if recorder is not None else None
        if found is None:
            raise UsageError(
                say("还没有对话", "nothing has been said yet"), say("先问一个问题", "ask one first")
            )
        return found

    def last_turns(self, count: int) -> tuple[SavedTurn, ...]:
        """Return the last turns of the conversation, with the origin of each answer."""
        recorder = self._prepared.recorder_in_use
        found = recorder.transcript() if recorder is not None else None
        return found.turns[-count:] if found else ()

    def search(
        self, terms: Sequence[str], limit: int, stop: threading.Event, progress: Callable[[int], None]
    ) -> list[tuple[FoundTurn, SessionRecord]] | None:
        """Return the turns of all saved sessions that contain every term, None if `stop` was set meanwhile.

        `progress` is called with the number of turns still to be indexed. What was indexed stays indexed.
        Raises UsageError with `--no-save`.
        """
        self._need_disk()
        store = self._prepared.store

        def go_on(left: int) -> None:
            if stop.is_set():
                raise _Stopped
            progress(left)

        try:
            hits = store.search(terms, limit, go_on)
        except _Stopped:
            return None
        records = {hit.session_id: store.get(hit.session_id) for hit in hits}
        return [(hit, records[hit.session_id]) for hit in hits]

    def keep_copy(self, text: str) -> Path:
        """Write a copied answer to a private file, and return its path. Deleting sessions deletes it too.

        Raises UsageError with `--no-save`.
        """
        path = self._prepared.store.path
        if path is None:
            raise UsageError(
                say("--no-save 时不写文件", "nothing is written under --no-save"),
                say("要写到指定的文件：/导出 文件.md", "to write a file of your choice: /export FILE.md"),
            )
        place = copied_answer(path)
        write_whole_file(place, text, private=True)
        return place

    def label(self, session: ChatSession) -> str:
        """Return the saved session's name or first words, "" if nothing is saved."""
        record = self._prepared.saved_session()
        if record is None:
            return ""
        turns = session.conversation.turns
        title = " ".join(turns[0].question.split()) if turns else record.id
        return record.name or (title if len(title) <= _TITLE else title[:_TITLE] + "…")

    def _need_disk(self) -> None:
        if not self.on_disk:
            raise UsageError(
                say(
                    "本次对话不保存，看不到已保存的会话",
                    "this chat is not being saved and cannot see saved sessions",
                ),
                say(
                    "先用 /保存 开始保存，或不用 --no-save 重新开始",
                    "type /save first, or start without --no-save",
                ),
            )

    def _on(self, session: ChatSession, record: SessionRecord) -> ChatSession:
        self._choose(record)
        system = str(self._prepared.settings.value("system") or "")
        return self._with(session, conversation_of(self._prepared.store, record, system), record)

    def _choose(self, record: SessionRecord | None) -> None:
        self._prepared.record = record
        self._prepared.choice = SessionChoice(save=self._prepared.choice.save)

    def _with(
        self, session: ChatSession, conversation: Conversation, record: SessionRecord | None
    ) -> ChatSession:
        return replace(
            session,
            conversation=conversation,
            recorder=self._prepared.recorder(record),
            last_stats=None,
            last_reasoning="",
            dropped=0,
            notices_shown=medical_safety.keys_shown(conversation),
        )
