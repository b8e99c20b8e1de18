"""The prompt form that fine-tuned weights were trained in: written beside them, and found again by chat.

A shipped or a family's own form is written by name, under `medchat_template` in the folder's small file.
Any other is somebody's file: its text goes along too. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from medchat.api import PromptTemplate, SpecialTokens
from medchat.templates import list_templates, load_template
from medchat.torchside.layout import read_json_object

KEY = "medchat_template"
FILE_NAME = "medchat_template.json"
#: The small files that state it: of an adapter, of a model.
STATING_FILES = ("adapter_config.json", "config.json")


def write_form(
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


def statement(folder: Path) -> Mapping[str, Any]:
    """Return what the folder's small file states, empty where there is none."""
    for name in STATING_FILES:
        if (folder / name).is_file():
            return read_json_object(folder / name)
    return {}


def stated_form(
    folder: Path,
    extra: Iterable[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
) -> PromptTemplate | None:
    """Return the form that the folder states, None where it states none or one that nobody here has.

    `extra` are the family's own. Raises UsageError for a template file that is damaged, CheckpointError
    for a damaged small file.
    """
    name = statement(folder).get(KEY)
    if not isinstance(name, str) or not name:
        return None
    if (folder / FILE_NAME).is_file():
        return load_template(folder / FILE_NAME, specials=specials, called=name)
    known = {template.name: template for template in (*list_templates(), *extra)}
    return known.get(name)
