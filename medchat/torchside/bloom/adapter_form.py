"""Which prompt template an adapter was trained with. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from medchat.api import LoadOptions, PromptTemplate
from medchat.errors import UsageError
from medchat.templates import load_template
from medchat.torchside.adapter_files import open_lora
from medchat.torchside.known_adapters import recognise


def adapter_form(
    options: LoadOptions, usual: str, extra: Sequence[PromptTemplate] = ()
) -> PromptTemplate | None:
    """Return the form of the last of `options.adapters`, or None where there are none.

    A published adapter has its own; one of our trainer states it. Any other, and a name that neither the
    shipped templates nor `extra` have, gets the `usual` one. Raises CheckpointError for a folder that is
    no adapter.
    """
    if not options.adapters:
        return None
    try:
        return load_template(trained_form(options) or usual, extra)
    except UsageError:
        return load_template(usual)


def trained_form(options: LoadOptions) -> str:
    """Return the name of the form that the last adapter is known to have been trained on, or ""."""
    if not options.adapters:
        return ""
    adapter = open_lora(options.adapters[-1])
    found = recognise(adapter)
    return found.known.template if found else adapter.template
