"""The prompt form that fine-tuned weights were trained in: written beside them, and found again by chat.

A shipped or a family's own form is written by name, under `medchat_template` in the folder's small file.
Any other is somebody's file: its text goes along too. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat.api import LoadOptions, PromptTemplate, SpecialTokens
from medchat.checkpoints.adapter_folder import known_template, open_adapter
from medchat.checkpoints.layout import read_json_object
from medchat.templates import list_templates, load_template

KEY = "medchat_template"
FILE_NAME = "medchat_template.json"
#: The small files that state it: of an adapter, of a model.
STATING_FILES = ("adapter_config.json", "config.json")


def write_template(
    template: PromptTemplate, folder: Path, extra: Iterable[PromptTemplate] = ()
) -> dict[str, str]:
    """Write the template's file if it has one and is not among the shipped; return the key that names it.

    `extra` are the family's own. A form that is neither there nor has a file is code of another plugin:
    chat could not find it by its name, and none is written.
    """
    if template in (*list_templates(), *extra):
        return {KEY: template.name}
    source = getattr(template, "source", "")
    if not source:
        return {}
    (folder / FILE_NAME).write_text(source, encoding="utf-8")
    return {KEY: template.name}


def stated_facts(folder: Path) -> Mapping[str, Any]:
    """Return what the folder's small file states, empty where there is none."""
    for name in STATING_FILES:
        if (folder / name).is_file():
            return read_json_object(folder / name)
    return {}


def stated_template(
    folder: Path,
    extra: Iterable[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
) -> PromptTemplate | None:
    """Return the form that the folder states, None where it states none or one that nobody here has.

    `extra` are the family's own. Raises UsageError for a template file that is damaged, CheckpointError
    for a damaged small file.
    """
    name = stated_facts(folder).get(KEY)
    if not isinstance(name, str) or not name:
        return None
    if (folder / FILE_NAME).is_file():
        return load_template(folder / FILE_NAME, specials=specials, called=name)
    known = {template.name: template for template in (*list_templates(), *extra)}
    return known.get(name)


# Which prompt template a Bloom, a Huozi or an adapter over one was trained with. No torch here.


def trained_template(
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
        return stated_template(options.model, extra, specials)
    name = known_template(open_adapter(options.adapters[-1]))
    return load_template(name) if name else stated_template(options.adapters[-1], extra, specials)


def template_of(
    options: LoadOptions,
    adapted: str,
    plain: PromptTemplate,
    extra: Sequence[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
) -> PromptTemplate:
    """Return the form to ask these weights in: the trained one, else `adapted` with adapters, else `plain`."""
    known = trained_template(options, extra, specials)
    return known or (load_template(adapted) if options.adapters else plain)
