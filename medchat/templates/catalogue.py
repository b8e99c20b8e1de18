"""Where templates are found: the shipped ones by name, any other by its path, plugins' by theirs."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from medchat.api import PromptTemplate, SpecialTokens
from medchat.errors import UsageError
from medchat.language import say
from medchat.templates.json_template import JsonTemplate, parse_template, read_template_text
from medchat.user_paths import user_path

_PACKAGE = "medchat_templates"
#: Files that hold a Jinja chat template and nothing else.
JINJA_SUFFIXES = (".jinja", ".j2")
_SOURCE_TREE = Path(__file__).resolve().parents[2] / "templates"


def list_templates() -> tuple[JsonTemplate, ...]:
    """Return the shipped templates, by name."""
    return tuple(_shipped().values())


def load_template(
    name_or_path: str | Path,
    extra_templates: Iterable[PromptTemplate] = (),
    specials: Callable[[], SpecialTokens] = SpecialTokens,
    elsewhere: Callable[[], Iterable[PromptTemplate]] = tuple,
    called: str = "",
) -> PromptTemplate:
    """Return the template of that name, or the one in that file.

    A plain word is a name: a shipped template's, else one of `extra_templates` (a backbone's or a
    plugin's), else a file of that name, else one of those that `elsewhere` is then asked for. Anything
    that ends in .json, .jinja or .j2 or has a folder in it is a path. `specials` is asked for the
    vocabulary's special tokens where the file is a Jinja template. A file's template is `called` so, or as
    the file is.
    Raises UsageError: no such template (with the nearest names), or a file that is not one.
    """
    wanted = os.fspath(name_or_path)
    if isinstance(name_or_path, Path) or _looks_like_path(wanted):
        return _read(user_path(wanted), specials, called)
    known: dict[str, PromptTemplate] = {template.name: template for template in extra_templates}
    known.update(_shipped())
    if wanted in known:
        return known[wanted]
    if Path(wanted).is_file():
        return _read(Path(wanted), specials, called)
    known.update({template.name: template for template in elsewhere() if template.name not in known})
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=2, cutoff=0.5)
    names = ", ".join(near or sorted(known))
    raise UsageError(
        say(f"没有名为“{wanted}”的模板", f"there is no template named {wanted!r}"),
        say(
            f"{'是不是想用' if near else '可用的有'}：{names}；也可以指定 .json 或 .jinja 文件的路径",
            f"{'did you mean' if near else 'there are'}: {names}; or give the path of a .json or .jinja file",
        ),
    )


def _read(path: Path, specials: Callable[[], SpecialTokens], called: str) -> PromptTemplate:
    # Jinja is imported where somebody brings such a template: the shipped ones never pay for it.
    from medchat.templates.jinja_template import KEY, jinja_in, parse_jinja, template_name

    text, name, where = read_template_text(path), called or template_name(path), str(path)
    if path.suffix in JINJA_SUFFIXES:
        return parse_jinja(text, name=name, where=where, specials=specials())
    held = jinja_in(text)
    if held is None:
        return parse_template(text, name=called or path.stem, where=where)
    source, stated = held
    known = specials()
    known = replace(known, roles={**known.roles, **stated})
    return parse_jinja(source, name=name, where=f"{where} {KEY}", specials=known)


def _looks_like_path(text: str) -> bool:
    return (
        text.endswith((".json", *JINJA_SUFFIXES)) or os.sep in text or bool(os.altsep and os.altsep in text)
    )


@cache
def _shipped() -> dict[str, JsonTemplate]:
    files = (file for file in _folder().iterdir() if file.name.endswith(".json"))
    names = {file.name.removesuffix(".json"): file for file in files}
    return {
        name: parse_template(file.read_text(encoding="utf-8"), name=name, where=file.name)
        for name, file in sorted(names.items())
    }


def _folder() -> Traversable:
    """The installed templates; the folder beside the package where nothing was installed."""
    try:
        return resources.files(_PACKAGE)
    except ModuleNotFoundError:
        return _SOURCE_TREE
