"""What is said before a first answer, whatever command is to give it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from medchat import medical_safety
from medchat.api import ChatModel
from medchat.chat.session_choice import open_store
from medchat.chat.setup import ChatSetup
from medchat.errors import MedchatError
from medchat.sanitize import sanitize_line
from medchat.store import SessionStore


def disclaimer_lines(store: SessionStore) -> list[str]:
    """Return the full disclaimer once per install (at each start where that cannot be kept), and a line."""
    lines = [medical_safety.start_line()]
    with suppress(
        MedchatError
    ):  # a damaged file stops no answer; whoever saves to it says that it is damaged
        if store.seen(medical_safety.DISCLAIMER_KEY):
            return lines
        store.mark_seen(medical_safety.DISCLAIMER_KEY)
    return [medical_safety.disclaimer(), *lines]


def opening_lines(opening: ChatSetup, warn: Callable[[str], None]) -> list[str]:
    """Return what a command that keeps no session says before it loads the model.

    The disclaimer, the notices of the backbone and the template, what the folder's own `medchat.toml` chose,
    and which plugins have failed. `warn` is told of a sessions file that cannot be used.
    """
    store = open_store(save=bool(opening.settings.value("save")), warn=warn)
    try:
        lines = disclaimer_lines(store)
    finally:
        store.close()
    lines += opening.notices()
    if notice := opening.settings.folder_notice():
        lines.append(sanitize_line(notice, 600))
    return lines + [str(failure) for failure in opening.registry.failures]


def model_notes(model: ChatModel) -> list[str]:
    """Return what loading has to tell the user (a rule that was assumed, two heads that differ)."""
    return [sanitize_line(str(note), 300) for note in model.describe().get("notes", ())]
