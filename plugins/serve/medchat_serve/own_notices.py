"""Our notices in what clients send back as history: taken out, for the model never wrote them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from medchat.plugin_kit import Conversation, Notice, notice_texts

#: What stands between a notice and the answer in one text.
BETWEEN = "\n\n"
#: How many texts of plugins' notices are known again.
_REMEMBERED = 512


class OwnNotices:
    """The texts that this server puts before or behind an answer: MedChat's own, and what plugins advised lately."""

    def __init__(self) -> None:
        self._ours = notice_texts()
        self._lately: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, notice: Notice) -> None:
        """Note that `notice` is in the text of an answer."""
        with self._lock:
            self._lately[notice.text] = None
            if len(self._lately) > _REMEMBERED:
                self._lately.popitem(last=False)

    def taken_out_of(self, conversation: Conversation) -> Conversation:
        """Return the conversation without our notices at the beginning and the end of its answers.

        Only a text that is ours to the letter goes: whatever resembles one is the client's own.
        """
        with self._lock:
            texts = (*self._ours, *self._lately)
        turns = tuple(replace(turn, answer=_without(turn.answer, texts)) for turn in conversation.turns)
        return replace(conversation, turns=turns)


def _without(answer: str, texts: tuple[str, ...]) -> str:
    while True:
        found = next((text for text in texts if answer.startswith(text + BETWEEN) or answer == text), None)
        if found is None:
            break
        answer = answer[len(found) :].removeprefix(BETWEEN)
    while True:
        ending = next((text for text in texts if answer.endswith(BETWEEN + text)), None)
        if ending is None:
            return answer
        answer = answer[: -len(BETWEEN + ending)]
