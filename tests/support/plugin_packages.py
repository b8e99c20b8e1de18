"""Fabricated distributions: a folder to put on `sys.path` (or PYTHONPATH) that holds plugins."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

EntryPoints = Mapping[str, Mapping[str, str]]


def write_distribution(
    folder: Path,
    name: str,
    entry_points: EntryPoints | str,
    modules: Mapping[str, str] | None = None,
    *,
    version: str = "1.0",
    suffix: str = ".dist-info",
) -> Path:
    """Write the metadata of distribution `name` and its modules (name -> source) into `folder`.

    `entry_points` maps group -> name -> value, or is the text of `entry_points.txt` itself. Returns
    the metadata folder.
    """
    info = folder / f"{name.replace('-', '_')}-{version}{suffix}"
    info.mkdir(parents=True)
    headers = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not this one\n"
    (info / ("METADATA" if suffix == ".dist-info" else "PKG-INFO")).write_text(headers, encoding="utf-8")
    text = entry_points if isinstance(entry_points, str) else entry_points_text(entry_points)
    (info / "entry_points.txt").write_text(text, encoding="utf-8")
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
    return info


def entry_points_text(entry_points: EntryPoints) -> str:
    """Return the text of an `entry_points.txt`."""
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()), ""]
    return "\n".join(lines)


#: A backbone that does nothing, under the name given to `str.replace("NAME", …)`.
BACKBONE_MODULE = """
from medchat.api import Backbone
from medchat.hookspecs import hookimpl

medchat_api_version = 1

class Plain(Backbone):
    name = "NAME"
    summary = {"zh": "", "en": ""}
    def load(self, options): raise AssertionError("a backbone that is only listed was loaded")
    def template(self, options): raise AssertionError("a backbone that is only listed was asked for its template")
    def inspect(self, path): return None
    def tiny(self, path, *, corpus=(), seed=0, **shape): pass

@hookimpl
def medchat_backbones():
    return [Plain()]
"""


def code_lines(source: str) -> int:
    """Return how many lines of a module are code: no blank lines, comments or docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [
        node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)
    ]
    prose = {line for text in texts for line in range(text.lineno, (text.end_lineno or text.lineno) + 1)}
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        bool(text.strip()) and not text.strip().startswith("#") and at not in prose for at, text in lines
    )
