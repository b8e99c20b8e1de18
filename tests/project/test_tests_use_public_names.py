"""The tests use MedChat by the names that a program uses: no private attribute, function or module member."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from locations import ROOT

#: Private names of the standard library and of other packages that have no public counterpart.
ALLOWED = {
    "_exit": "os._exit, the documented way to end a forked child",
    "_actions": "the flags of an argparse parser, for those of torchrun and accelerate",
    "_from_text": "how importlib.metadata itself reads entry points, which our parser is held against",
    "_attn_implementation": "the attention that a model of transformers was built with",
    "_no_split_modules": "the blocks of a model of transformers that sharding must keep whole",
    "_is_mkldnn_bf16_supported": "torch's own answer on bfloat16 kernels of this processor",
}
PATCHING = ("setattr", "delattr", "getattr", "hasattr", "patch")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in ALLOWED


def names_reached(node: ast.AST) -> Iterator[str]:
    """Yield every name that `node` reaches for in an object or module other than `self` and `cls`."""
    match node:
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            return
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
            return
        case ast.Attribute(attr=name):
            yield name
        case ast.ImportFrom(module=module, names=names):
            yield from (module or "").split(".")
            yield from (alias.name for alias in names)
        case ast.Import(names=names):
            yield from (part for alias in names for part in alias.name.split("."))
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments) if name in PATCHING:
            for argument in arguments[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield from argument.value.split(".")


def reaches(source: str) -> list[tuple[int, str]]:
    """Return the line and the name of every private name that `source` reaches for."""
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [(node.lineno, name) for name in names_reached(node) if private(name)]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("model._limits", "_limits"),
        ("module.Class()._state()", "_state"),
        ("from medchat.store import _lock", "_lock"),
        ("from medchat._hidden import word", "_hidden"),
        ("import medchat._hidden", "_hidden"),
        ("monkeypatch.setattr(module, '_FRAME', 0.0)", "_FRAME"),
        ("patch.setattr('medchat.commands.demo._train', f)", "_train"),
        ("getattr(model, '_cleanup')", "_cleanup"),
    ],
)
def test_each_way_to_a_private_name_is_seen(source: str, name: str) -> None:
    assert reaches(source) == [(1, name)]


@pytest.mark.parametrize(
    "source", ["self._own", "super()._own", "__import__('os')", "os._exit(0)", "{'_key': 1}"]
)
def test_ones_own_names_and_data_are_not(source: str) -> None:
    assert reaches(source) == []


def test_no_test_reaches_for_a_private_name() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert len(files) > 150
    sources = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}
    assert {name: found for name, source in sources.items() if (found := reaches(source))} == {}
    assert [name for name in ALLOWED if not any(name in source for source in sources.values())] == []
