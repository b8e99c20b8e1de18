"""Docstrings say what a caller needs (shapes or dtypes, what is raised), in the field's own words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest
from locations import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: A shape ("[B, T]", "Any shape", "a scalar"), a dtype, or the function whose docstring says it.
SHAPE_OR_DTYPE = re.compile(
    r"\[[^\]]*\w[^\]]*\]|scalar|shape|dtype|float16|float32|bfloat16|int8|int64|[Ss]ee `", re.I
)
RAISES = re.compile(r"raise|refuse|Error", re.I)


def public_functions(source: str) -> Iterator[tuple[str, Function]]:
    """Give the public functions and methods of a module, with their dotted names."""

    def within(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from within(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, Function) and not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node

    return within(ast.parse(source).body, "")


def takes_tensors(function: Function) -> bool:
    """Whether a tensor stands among the arguments or in what is returned."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [*(argument.annotation for argument in arguments), function.returns]
    return any(re.search(r"\bTensor\b", ast.unparse(found)) for found in annotations if found)


def raises(function: Function) -> bool:
    """Whether the function's own body raises something new (and not what it caught)."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


def is_command_or_override(function: Function) -> bool:
    """Whether a base class or the help page says what the docstring leaves out."""
    marks = [ast.unparse(mark) for mark in function.decorator_list]
    return any("override" in mark or "command" in mark for mark in marks) or not ast.get_docstring(function)


def faults(source: str) -> list[str]:
    """Return what the docstrings of a module leave out, a line each."""
    found = []
    for name, function in public_functions(source):
        said = ast.get_docstring(function) or ""
        if is_command_or_override(function):
            continue
        if takes_tensors(function) and not SHAPE_OR_DTYPE.search(said):
            found.append(f"{name}: no shape or dtype")
        if raises(function) and not RAISES.search(said):
            found.append(f"{name}: raises, and does not say what")
    return found


SOURCES = sorted(
    path
    for folder in ("medchat", "plugins")
    for path in (ROOT / folder).rglob("*.py")
    if "egg-info" not in path.parts
)


def test_public_functions_state_shapes_and_what_they_raise() -> None:
    assert len(SOURCES) > 200
    found = {
        str(path.relative_to(ROOT)): said
        for path in SOURCES
        if (said := faults(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('def f(x: Tensor) -> int:\n    """Count."""', ["f: no shape or dtype"]),
        ('def f(x: Tensor) -> int:\n    """Count the rows of [B, T]."""', []),
        ('class A:\n    def f(self) -> list[Tensor]:\n        """Give all."""', ["A.f: no shape or dtype"]),
        (
            'def f() -> None:\n    """Go."""\n    if x:\n        raise ValueError("no")',
            ["f: raises, and does not say what"],
        ),
        ('def f() -> None:\n    """Go."""\n    try:\n        g()\n    except OSError:\n        raise', []),
        ('def f() -> None:\n    """Go."""\n    def g() -> None:\n        raise ValueError("no")', []),
        ('def _f(x: Tensor) -> None:\n    """Count."""\n    raise ValueError', []),
    ],
)
def test_a_missing_word_is_found(source: str, said: list[str]) -> None:
    assert faults(source) == said


#: Expressions that only this project used, and the field's words for them.
PLAIN_WORDS = {
    r"\banew\b": "again",
    r"\bin the place of\b": "in place of",
    r"\b(gone|goes|go|going) on with\b": "continue, resume",
    r"\b(laid|lies?|lay) over\b": "attached to, on top of",
    r"\bstands? behind\b": "follows",
    r"\bstands? on the disk\b": "is on disk",
    r"\bat hand\b": "available, in memory",
    r"\bround in circles\b": "repeats itself",
    r"\bfit to be shown\b": "sanitized",
    r"\binert\b": "sanitized",
    r"\bpapers\b": "reports, output files",
    r"\btold of\b": "reported, logged",
    r"\bother than before\b": "changed",
    r"\bothers' work\b": "the other processes' results",
    r"\bwhosever\b": "any",
    r"\blikest\b": "most similar",
}
UNCLEAR = re.compile("|".join(PLAIN_WORDS))
COMMENT = re.compile(r"\n[ \t]*#:? ?")


def prose_of(source: str) -> Iterator[str]:
    """Give the docstrings and comments of a module, each on one line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            yield " ".join((ast.get_docstring(node) or "").split())
    comments: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if not comments or token.start[0] != last + 1:
                comments.append("")
            comments[-1] += " " + token.string.lstrip("#: ")
            last = token.start[0]
    yield from comments


def unclear_words(source: str) -> list[str]:
    """Return the expressions of `PLAIN_WORDS` in docstrings and comments, each with what to say instead."""
    if not UNCLEAR.search(" ".join(COMMENT.sub(" ", source).split())):
        return []  # the usual case: parsing every module would take seconds
    return [
        f"“{found[0]}”: say “{PLAIN_WORDS[word]}”"
        for text in prose_of(source)
        for word in PLAIN_WORDS
        for found in re.finditer(word, text)
    ]


def test_docstrings_and_comments_use_the_fields_words() -> None:
    folders = ("medchat", "plugins", "tests", "scripts", "benchmarks", "examples")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 500
    found = {
        str(path.relative_to(ROOT)): said
        for path in paths
        if path.name != "test_docstrings.py"
        and "egg-info" not in path.parts
        and (said := unclear_words(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""Read it anew."""', ["anew"]),
        ('def f():\n    """Put it in\n    the place of the old one."""', ["in the place of"]),
        ("x = 1  # gone on with later", ["gone on with"]),
        ("# What stands\n# behind a prompt.\nx = 1", ["stands behind"]),
        ("#: The run is\n#: told of twice.\nX = 1", ["told of"]),
        ('x = say("重新开始", "begin anew")', []),
        ('"""Read it again."""', []),
    ],
)
def test_an_unclear_word_is_found_in_prose_alone(source: str, found: list[str]) -> None:
    assert [said.split("”")[0][1:] for said in unclear_words(source)] == found
