"""Reading a TOML file of settings: flat names, their lines, and what a project's file may not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import SETTINGS_BYTES, read_regular
from medchat.settings.keys import KEYS, Key, unknown
from medchat.settings.values import checked, resolved

#: How many parts of a dotted name are looked at, and a line that begins with one as long or longer.
_MOST_PARTS = 32
_NAME = re.compile(rf"""\s*\[{{0,2}}(?:[\w\-"' \t]*\.){{{_MOST_PARTS + 1}}}[\w\-."' \t]*[\]=]""")
#: A name is looked for in so many characters of a line.
_LINE_START = 400
#: name -> (value, "file:line")
FileValues = dict[str, tuple[Any, str]]


def read_file(path: Path, *, project: bool) -> FileValues:
    """Return the checked settings in the file at `path`; none if there is no such file.

    `project` is for `./medchat.toml`, which came with a folder that someone else may have made: it may
    not enable plugins, remote endpoints or code, nor loosen what protects the user. Raises UsageError.
    """
    found: FileValues = {}
    for name, value, where in entries_of(path) or ():
        key = KEYS.get(name)
        if key is None:
            raise unknown(name, where)
        value = checked(key, value, name, where)
        if project:
            _refuse_to_project(key, value, where)
        found[name] = (resolved(key, value, path.absolute().parent), where)
    return found


def entries_of(path: Path) -> list[tuple[str, Any, str]] | None:
    """Return what a TOML file sets, unchecked: dotted name, value, `file:line`. None if there is no such file.

    Raises UsageError for a file that cannot be read, is not UTF-8 or not TOML.
    """
    text = _text_of(path)
    if text is None:
        return None
    return [(name, value, f"{path}:{_line_of(name, text)}") for name, value in _flat(_parsed(text, path))]


def _text_of(path: Path) -> str | None:
    try:
        return read_regular(path, SETTINGS_BYTES).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            say(f"无法读取配置文件：{error.strerror}", f"cannot read the configuration: {error.strerror}"),
            say("请检查这个文件及其权限", "check the file and its permissions"),
            where=str(path),
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(
            say("配置文件不是 UTF-8 编码", "the configuration is not UTF-8"),
            say("请用 UTF-8 编码保存", "save it as UTF-8"),
            where=f"{path}:{line}",
        ) from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    import tomllib  # 16 ms that only users with a file pay

    try:
        # A name of thousands of parts takes the parser minutes. No setting has more than three.
        for line in text.splitlines():
            if line.count(".") > _MOST_PARTS and _NAME.match(line):
                raise ValueError(f"a name of more than {_MOST_PARTS} parts")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # nested too deeply, a number of thousands of digits
        position = re.search(r"line (\d+), column (\d+)", str(error))
        line = position[1] if position else str(text.count("\n") + 1)
        raise UsageError(
            say(f"配置文件有语法错误：{error}", f"the configuration is not valid TOML: {error}"),
            say('写法示例：device = "cpu"', 'write it like: device = "cpu"'),
            where=f"{path}:{line}",
        ) from error


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        inside = isinstance(value, dict) and any(key.startswith(f"{prefix}{name}.") for key in KEYS)
        if prefix.count(".") < _MOST_PARTS and (inside or (isinstance(value, dict) and value)):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _line_of(name: str, text: str) -> int:
    """Return the line that sets `name`, as well as a scan for headers and `key =` can tell, else 1."""
    table, nearest = "", 1
    for number, whole in enumerate(text.splitlines(), start=1):
        line = whole[:_LINE_START]
        if header := re.match(r"\s*\[\[?([^\]]+)\]", line):
            table = _plain(header[1]) + "."
            written = table.removesuffix(".")
        elif assignment := re.match(r"""\s*([\w\-."' ]+?)\s*=""", line):
            written = table + _plain(assignment[1])
        else:
            continue
        if written == name:
            return number
        if name.startswith(written + "."):
            nearest = number
    return nearest


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))


def _refuse_to_project(key: Key, value: Any, where: str) -> None:
    remote = key.is_path and any("://" in part for part in ((value,) if isinstance(value, str) else value))
    if not remote and (key.project is True or (key.project and value in key.project)):
        return
    shown = (
        value if isinstance(value, str) else "true" if value is True else "false" if value is False else "…"
    )
    raise UsageError(
        say(
            f"当前目录的 medchat.toml 不能设置 {key.name} = {shown}："
            "随目录而来的文件不能启用插件、远程端点或代码，也不能放宽保护",
            f"medchat.toml in this folder may not set {key.name} = {shown}: a file that came with a folder"
            " may not enable plugins, remote endpoints or code, nor loosen protections",
        ),
        say(
            f"如确需如此，请用 {key.variable} 环境变量，或写进自己的配置（medchat config path）",
            f"if you want it, set {key.variable} or use your own configuration (medchat config path)",
        ),
        where=where,
    )
