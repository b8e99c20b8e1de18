"""One word, one home: a public class or function of one name is defined in one module alone."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from locations import ROOT

#: Names that a contract gives to several modules.
REQUIRED = {
    "command": "the click command of each module under medchat/commands: medchat.cli loads them by this name",
    "medchat_backbones": "a hook: pluggy finds the implementation of each plugin by its name",
    "medchat_commands": "a hook, as above",
    "medchat_templates": "a hook, as above",
}


def modules() -> Iterator[Path]:
    yield from (ROOT / "medchat").rglob("*.py")
    yield from (ROOT / "plugins").rglob("*.py")


def definitions() -> dict[str, list[str]]:
    """Return the modules that define each public top-level class and function."""
    homes = defaultdict(list)
    for module in modules():
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            named = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if named and not node.name.startswith("_"):
                homes[node.name].append(str(module.relative_to(ROOT)))
    return homes


def test_no_public_name_has_two_homes() -> None:
    homes = definitions()
    assert len(homes) > 900
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in REQUIRED} == {}
    assert all(len(homes[name]) > 1 for name in REQUIRED), "an exception that nothing needs"
