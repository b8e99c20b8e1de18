"""Every file is opened by `open_regular`, and docs/files.md lists each with the limit that the code has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_list import documented
from locations import ROOT

from medchat.regular_files import UNLIMITED

#: The functions that open a file, and where their limit stands; in `read_json_object` and `file_bytes` it is passed on.
OPENERS = {"open_regular", "read_regular", "read_json", "file_bytes", "read_json_object"}
DOOR = "medchat/regular_files.py"
#: Other ways to open a file, and why each is right where it stands.
ALLOWED = {
    ("medchat/regular_files.py", "os.open"): "the door itself",
    ("medchat/checkpoints/pickle_header.py", "zipfile.ZipFile"): "over a stream that the door opened",
    ("medchat/checkpoints/pickle_header.py", "archive.open"): "a record of that stream",
    (
        "medchat/inference/shards.py",
        "safe_open",
    ): "the library maps the file itself; its header was read by the door",
    (
        "medchat/inference/shards.py",
        "torch.load",
    ): "torch maps the file itself; its pickle was read by the door",
    ("medchat/inference/mapped_weights.py", "mmap.mmap"): "a file that the door opened",
    (
        "medchat/training/checkpoint.py",
        "safe_open",
    ): "a file of the run's own checkpoint, checked by its manifest",
    ("medchat/inference/write_checkpoint.py", "safe_open"): "the result that was written a moment before",
    (
        "plugins/export/medchat_export/gguf_file.py",
        "safe_open",
    ): "the merged weights, written a moment before",
    ("medchat/whole_file.py", "os.open"): "to write; and a file or folder of ours to wait for the disk",
    ("medchat/repl/terminal.py", "os.open"): "the null device, to write to",
    ("medchat/cli/output.py", "os.open"): "the null device, to write to",
    ("medchat/training/run_folder.py", "os.open"): "a lock file of ours, to write",
    ("medchat/store/database.py", "os.open"): "the sessions' file, made private before SQLite opens it",
    ("medchat/store/database.py", "sqlite3.connect"): "SQLite opens its file itself",
    ("medchat/store/schema.py", "sqlite3.connect"): "a database in memory, no file",
    ("medchat/batch/result_file.py", "os.open"): "the result file, to write",
    ("medchat/commands/ask_server.py", "os.open"): "files of ours, to lock and to write",
    ("plugins/serve/medchat_serve/announcement.py", "os.open"): "a file of ours, to lock and to write",
    ("medchat/weights/http.py", "partial.open"): "a download of ours, to go on writing it",
    ("medchat/commands/new_plugin.py", "read_text"): "our own templates, in the package",
    ("medchat/demo_data.py", "read_text"): "part of the installed package",
    ("medchat/medical_safety/lexicon_files.py", "read_text"): "part of the installed package",
    ("medchat/templates/catalogue.py", "read_text"): "part of the installed package",
    ("plugins/data/medchat_data/command.py", "read_text"): "part of the installed package",
    ("plugins/serve/medchat_serve/page.py", "read_text"): "part of the installed package",
    ("plugins/eval/medchat_eval/command.py", "read_text"): "part of the installed package",
}
#: What opens a file by its path, whatever it is called on.
METHODS = {"read_text", "read_bytes"}
FUNCTIONS = {
    *("os.open", "io.open", "io.FileIO", "io.open_code", "codecs.open", "gzip.open", "bz2.open", "lzma.open"),
    *(
        "tarfile.open",
        "zipfile.ZipFile",
        "sqlite3.connect",
        "safe_open",
        "safetensors.safe_open",
        "torch.load",
    ),
    *(
        "torch.jit.load",
        "safetensors.torch.load_file",
        "load_file",
        "json.load",
        "tomllib.load",
        "pickle.load",
    ),
    *("np.load", "numpy.load", "np.memmap", "linecache.getlines", "runpy.run_path", "Tokenizer.from_file"),
    *("configparser.ConfigParser", "shelve.open", "dbm.open", "fileinput.input", "mmap.mmap"),
}


def modules() -> Iterator[Path]:
    yield from (ROOT / "medchat").rglob("*.py")
    yield from (ROOT / "plugins").rglob("*.py")


def written(node: ast.expr) -> str:
    """Return a dotted name as it is written, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := written(node.value)):
        return f"{before}.{node.attr}"
    return ""


def writes(call: ast.Call, mode_at: int) -> bool:
    """Say whether a call of some `open` states a mode that makes or adds to a file and reads none."""
    modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[mode_at : mode_at + 1]
    return any(isinstance(mode, ast.Constant) and str(mode.value)[:1] in "wax" for mode in modes if mode)


def reads(source: str) -> list[str]:
    """Return every way to open a file to read it in `source`, as it is written, but for the door's functions."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = written(call.func)
        if name in FUNCTIONS or (name == "open" and not writes(call, 1)):
            found.append(name)
        elif isinstance(call.func, ast.Attribute) and call.func.attr in METHODS:
            found.append(call.func.attr)
        elif (
            isinstance(call.func, ast.Attribute)
            and call.func.attr == "open"
            and not name[:1].isupper()  # a class of ours that has a method of this name
            and not writes(call, 0)
        ):
            found.append(name or "open")
    return found


@pytest.mark.parametrize(
    "source",
    [
        *(
            "open(path)",
            "open(path, 'rb')",
            "path.open()",
            "path.open('rb')",
            "(a / b).open()",
            "Path(p).read_text()",
        ),
        *(
            "path.read_bytes()",
            "os.open(p, 0)",
            "json.load(stream)",
            "tomllib.load(stream)",
            "zipfile.ZipFile(p)",
        ),
        *("torch.load(p)", "safe_open(p, framework='pt')", "sqlite3.connect(p)", "Tokenizer.from_file(p)"),
        *("open(path, mode)", "path.open('r+b')", "mmap.mmap(n, 0)"),
    ],
)
def test_each_way_to_read_a_file_is_seen(source: str) -> None:
    assert len(reads(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        *(
            "open(path, 'w')",
            "path.open('ab')",
            "path.open(mode='x')",
            "SessionStore.open()",
            "json.loads(text)",
        ),
        "read_regular(path, 1)",
    ],
)
def test_what_writes_or_opens_no_file_is_not(source: str) -> None:
    assert reads(source) == []


def test_no_module_reads_a_file_but_through_the_door() -> None:
    found = {
        (str(module.relative_to(ROOT)), name)
        for module in modules()
        for name in reads(module.read_text(encoding="utf-8"))
    }
    assert found - ALLOWED.keys() == set(), "open it by medchat.regular_files, and add a row to docs/files.md"
    assert ALLOWED.keys() - found == set(), "an exception that nothing needs"


# ---------------------------------------------------------------- the list


def in_words(size: int) -> str:
    if size == UNLIMITED:
        return "any size"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def limits() -> set[tuple[str, str]]:
    """Return the module and the limit, in words, of every call that opens a file."""
    found = set()
    for path in modules():
        tree, place = ast.parse(path.read_text(encoding="utf-8")), str(path.relative_to(ROOT))
        for call in ast.walk(tree) if place != DOOR else ():
            if isinstance(call, ast.Call) and written(call.func).rpartition(".")[2] in OPENERS:
                stated = [word.value for word in call.keywords if word.arg == "most"] or call.args[1:2]
                if stated:
                    found.add((place, in_words(value_of(written(stated[0]), tree))))
    return found


def value_of(name: str, tree: ast.Module) -> int:
    """Return the number that a limit's name stands for in a module: its own, an imported one, or a default."""
    if name == "most":  # handed on by a function that has a default for it
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        (name,) = {written(default) for function in functions for default in function.args.defaults}
    before, _, last = name.rpartition(".")
    for node in tree.body:
        if isinstance(node, ast.Assign):
            pairs = zip(*map(parts, (node.targets[0], node.value)), strict=False)
            stated = [value for target, value in pairs if written(target) == name]
            if stated:
                return number(stated[0])
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("medchat"):
            named = {alias.asname or alias.name: alias.name for alias in node.names}
            if name in named:
                return value_of(named[name], parsed(node.module))
            if before in named:
                return value_of(last, parsed(f"{node.module}.{named[before]}"))
    raise AssertionError(f"no value of {name}")


def parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def parsed(module: str) -> ast.Module:
    path = ROOT / (module.replace(".", "/") + ".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def number(node: ast.expr) -> int:
    """Return the value of a number that is written as a product, a power or a shift of numbers."""
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return number(left) * number(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return int(number(left) ** number(right))
        case ast.BinOp(left=left, op=ast.LShift(), right=right):
            return number(left) << number(right)
    raise AssertionError(ast.unparse(node))


def test_every_file_that_is_read_is_listed_with_its_limit() -> None:
    assert len(documented()) > 25
    assert {(module, limit) for limit, module in documented()} == limits()
