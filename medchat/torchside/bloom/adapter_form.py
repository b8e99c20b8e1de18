"""Which prompt template a Bloom, a Huozi or an adapter over one was trained with. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medchat.api import LoadOptions, PromptTemplate, SpecialTokens
from medchat.templates import load_template
from medchat.torchside.adapter_kinds import known_template, open_adapter
from medchat.torchside.trained_form import stated_form


def trained_form(
    options: LoadOptions,
    extra: Sequence[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
) -> PromptTemplate | None:
    """Return the form that the last adapter, else the weights, are known to have been trained on, or None.

    A published adapter has its own; what our trainer wrote states it. `extra` are the family's own forms;
    `specials` is asked where the folder brings a Jinja template. Raises CheckpointError for a folder that
    is no adapter.
    """
    if not options.adapters:
        return stated_form(options.model, extra, specials)
    name = known_template(open_adapter(options.adapters[-1]))
    return load_template(name) if name else stated_form(options.adapters[-1], extra, specials)


def form_of(
    options: LoadOptions,
    adapted: str,
    plain: PromptTemplate,
    extra: Sequence[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
) -> PromptTemplate:
    """Return the form to ask these weights in: the trained one, else `adapted` with adapters, else `plain`."""
    known = trained_form(options, extra, specials)
    return known or (load_template(adapted) if options.adapters else plain)
