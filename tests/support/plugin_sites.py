"""Distributions of plugins, as in site-packages.

(PYTEST_DONT_REWRITE: imported by name as well as as a plugin.)
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from locations import ROOT
from plugin_packages import BACKBONE_MODULE, write_distribution

from medchat.api import Conversation, Notice, Turn

HEAD = "from medchat.hookspecs import hookimpl\nmedchat_api_version = 1\n"
#: Modules that cannot be used as plugins, each for another reason.
BROKEN_MODULES = {
    "import error": "import no_such_module_at_all",
    "exit": "raise SystemExit(0)",
    "wrong version": "medchat_api_version = 99",
    "misspelt hook": HEAD + "@hookimpl\ndef medchat_bakcbones(): return []\n",
    "loud": "print('noise')\nraise RuntimeError",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def add_backbone(site: Path, name: str, source: str | None = None, distribution: str = "") -> None:
    module = f"{distribution or name}_module".replace("-", "_")
    source = BACKBONE_MODULE.replace("NAME", name) if source is None else source
    write_distribution(site, distribution or f"medchat-{name}", {"medchat": {name: module}}, {module: source})


def add_extension(site: Path, name: str, source: str) -> None:
    entry_points = {"medchat.extensions": {name: f"{name}_module"}}
    write_distribution(site, f"medchat-{name}", entry_points, {f"{name}_module": HEAD + source})


ADVISER = """
from medchat.api import Notice
@hookimpl
def medchat_advise(conversation, text):
    return [Notice(f"NAME: {text} {len(conversation.turns)}")]
"""
TALK = Conversation((Turn("一", "甲"),))


def notices(name: str) -> Notice:
    return Notice(f"{name}: 头痛 1")


def example_site(site: Path, example: str) -> None:
    """Put the distribution of that folder under examples/ into `site`."""
    folder = ROOT / "examples" / example
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    write_distribution(site, project["name"], project["entry-points"], modules, version=project["version"])


def import_example(name: str) -> ModuleType:
    """Return the module of a plugin in `examples/`."""
    folder = str(ROOT / "examples" / name)
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(name.replace("-", "_"))


def echo_site(site: Path) -> None:
    example_site(site, "medchat-echo")
