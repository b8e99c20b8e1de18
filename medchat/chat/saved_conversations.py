"""Conversations that others hold and that are saved here: whoever asks brings along what was said before.

Each is a session of its own in the same file as those of `medchat chat`, and can be resumed there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medchat import medical_safety
from medchat.api import ChatModel, Conversation
from medchat.chat.conversation import PreparedChat
from medchat.chat.demo_mode import KnownQuestions
from medchat.chat.events import AnswerContext, TurnStats
from medchat.chat.session import ChatSession
from medchat.chat.session_choice import SessionChoice, open_store
from medchat.chat.setup import ChatSetup
from medchat.store import SessionStore

#: So many conversations are recognised when they go on; an older one goes on in a session of its own.
_RECOGNISED = 256
_Key = tuple[str, tuple[tuple[str, str], ...]]


class SavedConversations:
    """Where conversations with one model are saved. Used in one thread."""

    def __init__(
        self,
        opening: ChatSetup,
        demo: KnownQuestions | None,
        model: ChatModel,
        store: SessionStore,
        warn: Callable[[str], None],
    ) -> None:
        """`warn` is called with a line where nothing can be saved any more."""
        self._opening, self._demo, self._model = opening, demo, model
        self._store, self._warn = store, warn
        self._known: OrderedDict[_Key, ChatSession] = OrderedDict()

    def chat(self, conversation: Conversation) -> ChatSession:
        """Return the chat engine that continues `conversation` and saves each turn.

        A conversation whose last answer was given here goes on in its session. Any other begins one, with
        the earlier turns as its first, marked as edited: they are what the caller says.
        """
        session = self._known.pop(_key(conversation), None)
        if session is None:
            session = self._begun(conversation)
        session.config = self._opening.generation
        return session

    def remember(self, session: ChatSession) -> None:
        """Recognise the conversation as it stands now when it goes on. Call it once an answer has ended or failed."""
        if not session.conversation.turns:
            return
        self._known[_key(session.conversation)] = session
        while len(self._known) > _RECOGNISED:
            self._known.popitem(last=False)

    def _begun(self, conversation: Conversation) -> ChatSession:
        prepared = PreparedChat(self._opening, self._store, None, SessionChoice(), self._warn, self._demo)
        session = prepared.begin(self._model)
        session.conversation = Conversation(
            conversation.turns, conversation.system or session.conversation.system
        )
        session.notices_shown = medical_safety.keys_shown(conversation)
        for turn in conversation.turns:
            session.recorder.save(turn, TurnStats(), AnswerContext(session.config, edited=True))
        return session


def _key(conversation: Conversation) -> _Key:
    """Return what a conversation is recognised by: clients send answers back without the white space at their ends."""
    said = tuple((turn.question.strip(), turn.answer.strip()) for turn in conversation.turns)
    return conversation.system, said


@contextmanager
def open_saved_conversations(
    opening: ChatSetup, demo: KnownQuestions | None, model: ChatModel, warn: Callable[[str], None]
) -> Iterator[SavedConversations]:
    """Open the file of saved sessions; `warn` is told where it cannot be used, and then nothing is saved."""
    store = open_store(save=True, warn=warn)
    try:
        yield SavedConversations(opening, demo, model, store, warn)
    finally:
        store.close()
