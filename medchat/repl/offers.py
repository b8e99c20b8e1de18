"""Tab completion of commands' arguments: names of sessions, weights, templates and settings, and paths."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medchat.errors import MedchatError
from medchat.language import LANGUAGES, say
from medchat.repl.rows import excerpt
from medchat.repl.set_command import setting_names, setting_values
from medchat.repl.slash import Offer
from medchat.repl.typed_paths import last_word
from medchat.sanitize import sanitize
from medchat.settings.keys import THEMES
from medchat.templates import list_templates
from medchat.user_paths import user_path

if TYPE_CHECKING:
    from medchat.repl.chat import Chat

#: The number of a folder's entries that are read, and of sessions that are offered, newest first.
_ENTRIES, _SESSIONS = 5000, 200


def sessions(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the saved sessions by name, else by id, with their titles; none while the model is loading."""
    saved = chat.startup.sessions
    if saved is None or not chat.exchange.is_ready:
        return
    for record in chat.exchange.call(lambda _: saved.recent(_SESSIONS)):
        when = record.updated.astimezone().strftime("%m-%d %H:%M")
        of_id = record.id.startswith(words) or record.id[9:].startswith(words)
        by_name = record.name is not None and record.name.casefold().startswith(words.casefold())
        if by_name and record.name:
            yield Offer(record.name, len(words), when)
        elif of_id:
            yield Offer(record.id, len(words), f"{excerpt(record.title, 30)}  {when}")


def models(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the models in the models folder, and folders."""
    yield from _weights(chat, words, "base")


def adapters(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the adapters in the models folder, the word that removes adapters, and folders."""
    yield from _weights(chat, last_word(words), "adapter", [] if " " in words else ["none"])


def _weights(
    chat: Chat, typed: str, kind: Literal["base", "adapter"], others: Sequence[str] = ()
) -> Iterator[Offer]:
    names = chat.control.weights_here(kind) if chat.control is not None else ()
    yield from named(typed, [*names, *others])
    yield from paths(typed, folders_alone=True)


def compared(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the kinds that `/compare` takes, then the models or adapters there are."""
    who, blank, rest = words.partition(" ")
    if not blank:
        yield from named(words, [say("底座", "base"), say("适配器", "adapter"), say("模型", "model")])
    elif last_word(rest) == rest and who in ("adapter", "适配器", "model", "模型"):
        yield from _weights(chat, rest, "base" if who in ("model", "模型") else "adapter")


def templates(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the templates by name, the word for the model's own, and files."""
    names = [template.name for template in list_templates()]
    added = chat.control.templates if chat.control is not None else ()
    yield from named(words, [*dict.fromkeys((*added, *names)), "none"])
    yield from paths(words, quoted=False)


def settings(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer what `/set` takes, then the values of a setting that has few."""
    name, blank, value = words.partition(" ")
    yield from named(value, setting_values(name)) if blank else named(words, setting_names())


def files(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer files to attach; what follows the first is a question."""
    if last_word(words) == words:
        yield from paths(words)


def exports(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer where to export to."""
    yield from paths(words, quoted=False)


def presets(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the user's presets."""
    known = chat.control.presets if chat.control is not None else {}
    yield from (
        Offer(offer.text, offer.length, excerpt(known[offer.text], 30)) for offer in named(words, known)
    )


def commands(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the names of commands, in the language being typed."""
    names = [say(command.zh_name, command.name) for command in chat.commands]
    others = [say(command.name, command.zh_name) for command in chat.commands] if words else []
    yield from named(words, [*names, *others])


def languages(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the languages, then the word that saves the choice."""
    yield from _choice(words, LANGUAGES)


def themes(chat: Chat, words: str) -> Iterator[Offer]:
    """Offer the themes, then the word that saves the choice."""
    yield from _choice(words, THEMES)


def _choice(words: str, choices: Iterable[str]) -> Iterator[Offer]:
    _, blank, rest = words.partition(" ")
    yield from named(rest, ["save"]) if blank else named(words, choices)


def named(typed: str, names: Iterable[str]) -> Iterator[Offer]:
    """Offer the names that begin with what was typed, ignoring case."""
    for name in names:
        if name.casefold().startswith(typed.casefold()) and name != typed:
            yield Offer(name, len(typed))


def paths(typed: str, *, quoted: bool = True, folders_alone: bool = False) -> Iterator[Offer]:
    """Offer completions of a path; a folder's name ends with a slash.

    Hidden names are offered once their dot is typed; names with control characters or line ends never.
    `quoted`: a path with spaces is quoted as for a shell.
    """
    begun = typed.strip("'\"") if quoted else typed
    folder, slash, start = begun.rpartition("/")
    try:
        place = user_path(folder + slash) if slash else Path()
        with os.scandir(place) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in islice(entries, _ENTRIES))
    except (OSError, MedchatError):
        return
    for name, is_folder in found:
        hidden = name.startswith(".") and not start.startswith(".")
        if not name.startswith(start) or hidden or (folders_alone and not is_folder):
            continue
        path = f"{folder}{slash}{name}{'/' * is_folder}"
        if sanitize(path) == path and not {"\n", "\t"} & set(path):
            shown = shlex.quote(path) if quoted and re.search(r"[\s'\"\\]", path) else path
            if shown != typed:
                yield Offer(shown, len(typed))
