"""Tab completion in the input line: names of commands, and their arguments."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from medchat.errors import MedchatError
from medchat.repl.screen import untrusted
from medchat.repl.slash import SLASHES, Offer, find

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: The number of candidates offered at once: nobody reads through more.
_MOST = 200


class SlashCompleter(Completer):
    """Completes names of commands while they are typed, in the language being typed; on Tab, their arguments."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the completions at the cursor."""
        typed = document.text_before_cursor
        if not typed.startswith(SLASHES) or "\n" in typed:
            return
        name, blank, words = typed[1:].partition(" ")
        if not blank:
            yield from self._commands(name)
        elif complete_event.completion_requested:
            for offer in self._offers(name, words.lstrip()):
                yield Completion(
                    offer.text,
                    -offer.length,
                    untrusted(offer.text),
                    display_meta=untrusted(offer.note) or None,
                )

    def _commands(self, name: str) -> Iterable[Completion]:
        for command in self._chat.commands:
            for candidate, other in ((command.name, command.zh_name), (command.zh_name, command.name)):
                if candidate.startswith(name.lower()) and (name or candidate.isascii()):
                    yield Completion(
                        candidate, -len(name), f"/{candidate} /{other}", display_meta=command.summary
                    )

    def _offers(self, name: str, words: str) -> list[Offer]:
        try:
            command = find(name, self._chat.commands)
            return list(islice(command.complete(self._chat, words), _MOST))
        except (MedchatError, OSError):  # errors are not reported in the middle of a line
            return []


def complete_now(buffer: Buffer, completer: Completer) -> None:
    """The action of Tab: take the next candidate, insert the only one at once, or list them."""
    if buffer.complete_state is not None:
        buffer.complete_next()
        return
    found = list(completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
    if len(found) == 1:
        buffer.apply_completion(found[0])
    elif found:
        buffer.start_completion(insert_common_part=True)
