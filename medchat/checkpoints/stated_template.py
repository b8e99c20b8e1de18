"""The prompt template that fine-tuned weights were trained in: written beside them, and found again by chat.

A shipped or a family's own template is written by name, under `medchat_template` in the folder's small file.
Any other is somebody's file: its text goes along too. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medchat.api import LoadOptions, ModelCard, PromptTemplate, SpecialTokens
from medchat.checkpoints.adapter_folder import Adapter, known_template, open_adapter
from medchat.checkpoints.json_object import read_json_object
from medchat.errors import CheckpointError, UsageError
from medchat.language import say
from medchat.templates import list_templates, load_template

KEY = "medchat_template"
FILE_NAME = "medchat_template.json"
#: The small files that state it: of an adapter, of a model.
STATING_FILES = ("adapter_config.json", "config.json")


def write_template(
    template: PromptTemplate, folder: Path, extra: Iterable[PromptTemplate] = ()
) -> dict[str, str]:
    """Write the template's file if it has one and is not among the shipped; return the key that names it.

    `extra` are the family's own. A template that is neither there nor has a file is code of another plugin:
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
    """Return what the folder's small file states, empty if there is none."""
    for name in STATING_FILES:
        if (folder / name).is_file():
            return read_json_object(folder / name)
    return {}


def stated_template(
    folder: Path,
    extra: Iterable[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
) -> PromptTemplate | None:
    """Return the template that the folder states, None where it states none or one that nobody here has.

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


def with_template(card: ModelCard, find: Callable[[], PromptTemplate]) -> ModelCard:
    """Return the card with the name of the template that `find` returns, or a note of what is wrong with it."""
    try:
        return replace(card, template=find().name)
    except (UsageError, CheckpointError) as error:
        place = say(f"（{error.where}）", f" ({error.where})") if error.where else ""
        note = say(f"模板不能使用：{error.what}{place}", f"its template cannot be used: {error.what}{place}")
        return replace(card, template="", notes=(*card.notes, note))


@dataclass(frozen=True)
class TemplateChoice:
    """Which template a family's weights and adapters are asked in. Reads small files and headers only.

    `plain` and `adapted` name what weights, or an adapter, that state none are asked in. `own` are the
    family's own templates. `special_tokens` is asked where a folder brings a Jinja template.
    `plain_is_trained`: weights that state none are known to have been trained on `plain`.
    """

    plain: str
    adapted: str
    special_tokens: Callable[[LoadOptions], SpecialTokens]
    own: tuple[PromptTemplate, ...] = ()
    plain_is_trained: bool = False

    def trained(self, options: LoadOptions) -> PromptTemplate | None:
        """Return the template that the last adapter, else the weights, are known to have been trained on.

        A published adapter has its own; what our trainer wrote states it. None if nothing says it. Raises
        CheckpointError for a folder that is no adapter.
        """
        adapter = self.last_adapter(options)
        if adapter is None and options.adapters:
            return None
        name = known_template(adapter) if adapter else ""
        if name:
            return self.named(name)
        specials = partial(self.special_tokens, options)
        return stated_template(adapter.folder if adapter else options.model, self.own, specials)

    def last_adapter(self, options: LoadOptions) -> Adapter | None:
        """Return the adapter whose template counts. Raises CheckpointError for a folder that is none."""
        return open_adapter(options.adapters[-1]) if options.adapters else None

    def chosen(self, options: LoadOptions) -> PromptTemplate:
        """Return the template to ask in: the trained one, else `adapted` with adapters, else `plain`."""
        return self.trained(options) or self.named(self.adapted if options.adapters else self.plain)

    def known_names(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the names of the templates that were trained on for certain; none if unknown."""
        found = self.trained(options)
        if found is None and self.plain_is_trained and not options.adapters:
            found = self.named(self.plain)
        return (found.name,) if found else ()

    def named(self, name: str) -> PromptTemplate:
        """Return one of the family's own or of the shipped templates."""
        return next((template for template in self.own if template.name == name), None) or load_template(name)
