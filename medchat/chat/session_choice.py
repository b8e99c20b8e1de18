"""Chooses the saved session that a command continues, and what is shown before its first answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from medchat import medical_safety, paths
from medchat.api import ChatModel, Conversation
from medchat.chat.recorder import not_saved
from medchat.chat.setup import ChatSetup
from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.store import SessionKind, SessionRecord, SessionStore


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """Which saved session to continue: by name (opened or created), the latest, or one by id.

    The latest is always a chat: a session of `ask` is continued by name or id.
    """

    name: str | None = None
    latest: bool = False
    resume: str | None = None
    save: bool = True
    kind: SessionKind = SessionKind.CHAT


def open_store(*, save: bool, warn: Callable[[str], None]) -> SessionStore:
    """Open the sessions file, or a store in memory: for `--no-save`, and (with a warning) if the file fails."""
    if not save:
        return SessionStore.unsaved(paths.sessions_file())
    try:
        return SessionStore.open()
    except MedchatError as error:
        warn(not_saved(error))
        return SessionStore.unsaved()


def session_to_go_on_with(
    store: SessionStore, choice: SessionChoice, warn: Callable[[str], None]
) -> tuple[SessionStore, SessionRecord | None]:
    """Return the saved session that the flags select, and the store to continue with.

    The store is in memory if the file cannot be read and the flags need nothing of it: an answer is worth
    more than its record. Raises what `choose_session` raises.
    """
    try:
        record = choose_session(store, choice)
    except CheckpointError as error:
        if choice.latest or choice.resume is not None:
            raise
        store.close()
        warn(not_saved(error))
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
    """Return the saved session that the flags select, None for a new one. Raises UsageError if it is missing."""
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
        return _latest(store, with_asks=choice.kind is SessionKind.ASK)
    if choice.resume == "":
        raise UsageError(
            say("请指定要继续的会话编号", "name the session to continue"),
            say("查看已有会话：medchat sessions list", "list them: medchat sessions list"),
        )
    return None if choice.resume is None else store.get(choice.resume)


def _latest(store: SessionStore, *, with_asks: bool) -> SessionRecord:
    latest = store.latest(with_asks=with_asks)
    if latest is not None:
        return latest
    if store.latest() is not None:
        raise UsageError(
            say("还没有保存的对话，只有 ask 的问答", "there is no saved chat yet, only what `ask` was asked"),
            say(
                "要接着问答继续：medchat chat --resume 编号；编号见 medchat sessions list --all",
                "to go on with one: medchat chat --resume ID; medchat sessions list --all lists them",
            ),
        )
    raise UsageError(say("还没有保存的会话", "there is no saved session yet"), "medchat chat")


def conversation_of(store: SessionStore, record: SessionRecord | None, system: str) -> Conversation:
    """Return the saved session's conversation, or an empty one."""
    if record is None:
        return Conversation(system=system)
    saved = store.conversation(record.id)
    return Conversation(saved.turns, system or saved.system)


def disclaimer_lines(store: SessionStore) -> list[str]:
    """Return the full disclaimer once per install (at each start if that cannot be saved), and a line."""
    lines = [medical_safety.start_line()]
    with suppress(MedchatError):  # a damaged file prevents no answer; saving to it reports the damage
        if store.seen(medical_safety.DISCLAIMER_KEY):
            return lines
        store.mark_seen(medical_safety.DISCLAIMER_KEY)
    return [medical_safety.disclaimer(), *lines]


def opening_lines(opening: ChatSetup, warn: Callable[[str], None]) -> list[str]:
    """Return the lines that a command without a session shows before it loads the model.

    The disclaimer, the notices of the backbone and the template, what the folder's own `medchat.toml` chose,
    which plugins failed, and which others recognise the model. `warn` is called if the sessions file cannot
    be used.
    """
    store = open_store(save=bool(opening.settings.value("save")), warn=warn)
    try:
        lines = disclaimer_lines(store)
    finally:
        store.close()
    lines += opening.notices()
    if notice := opening.settings.folder_notice():
        lines.append(sanitize_line(notice, 600))
    return [*lines, *opening.registry.lines()]


def model_notes(model: ChatModel) -> list[str]:
    """Return notes on loading for the user (a rule that was assumed, two heads that differ)."""
    return [sanitize_line(str(note), 300) for note in model.describe().get("notes", ())]
