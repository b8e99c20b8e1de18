"""Reading a TOML file of settings: flat names, their lines, and what a project's file may not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import SETTINGS_BYTES, read_regular
from medchat.settings.keys import KEYS, Key, unknown
from medchat.settings.profiles import NOT_FOR_FOLDERS, check_name, profile_key, split_profile
from medchat.settings.values import checked, resolved

#: Questions with placeholders, `/preset NAME`: the table `[preset]` of the user's own file.
PRESETS = "preset."
#: What plugins declare for themselves: the tables `[plugin.NAME]`, checked once the plugin is used.
PLUGINS = "plugin."

#: How many parts of a dotted name are looked at, and a line that begins with one as long or longer.
_MOST_PARTS = 32
_NAME = re.compile(rf"""\s*\[{{0,2}}(?:[\w\-"' \t]*\.){{{_MOST_PARTS + 1}}}[\w\-."' \t]*[\]=]""")
#: A name is looked for in so many characters of a line.
_LINE_START = 400
#: name -> (value, "file:line")
FileValues = dict[str, tuple[Any, str]]


@dataclass(frozen=True, slots=True)
class FileSettings:
    """What a file sets, and its profiles, presets and tables of plugins by name."""

    values: FileValues = field(default_factory=dict)
    profiles: dict[str, FileValues] = field(default_factory=dict)
    presets: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, FileValues] = field(default_factory=dict)


def read_file(path: Path, *, project: bool) -> FileSettings:
    """Return what the file at `path` sets, checked; nothing if there is no such file.

    `project` is for `./medchat.toml`, which came with a folder that someone else may have made: it may
    not enable plugins, remote endpoints or code, nor loosen what protects the user; nor may a profile there
    name a backbone, template or system text, and it has no presets. Raises UsageError.
    """
    text = text_of(path)
    return FileSettings() if text is None else parse_settings(text, path, project=project)


def parse_settings(text: str, path: Path, *, project: bool) -> FileSettings:
    """Return what `text`, the content of the file at `path`, sets, as `read_file` does. Raises UsageError."""
    found = FileSettings()
    for name, value, where in _entries(text, path):
        profile, setting = split_profile(name)
        if name.startswith(PRESETS):
            found.presets[check_name(name.removeprefix(PRESETS), where)] = _preset(
                name, value, where, project
            )
            continue
        if name.startswith(PLUGINS):
            plugin, _, own = name.removeprefix(PLUGINS).partition(".")
            if own:
                found.plugins.setdefault(plugin, {})[own] = (value, where)
            continue
        if profile:
            values = found.profiles.setdefault(check_name(profile, where), {})
            if not setting and value == {}:
                continue
        key = profile_key(setting, where) if profile else KEYS.get(name)
        if key is None:
            raise unknown(name, where)
        value = checked(key, value, name, where)
        if project:
            _refuse_to_project(key, value, where)
            if profile and key.name in NOT_FOR_FOLDERS:
                raise _not_for_folders(name, value, "", where)
        (values if profile else found.values)[key.name] = (
            resolved(key, value, path.absolute().parent),
            where,
        )
    return found


def _preset(name: str, value: Any, where: str, project: bool) -> str:
    if project:
        raise _not_for_folders(name, value, "", where)
    if not isinstance(value, str):
        raise UsageError(
            say(f"{name} 应为文本", f"{name} must be text"),
            say('例如：病历 = "请总结：{病历}"', 'for example: case = "Summarise: {case}"'),
            where=where,
        )
    return value


def entries_of(path: Path) -> list[tuple[str, Any, str]] | None:
    """Return what a TOML file sets, unchecked: dotted name, value, `file:line`. None if there is no such file.

    Raises UsageError for a file that cannot be read, is not UTF-8 or not TOML.
    """
    text = text_of(path)
    return None if text is None else _entries(text, path)


def _entries(text: str, path: Path) -> list[tuple[str, Any, str]]:
    return [(name, value, f"{path}:{_line_of(name, text)}") for name, value in _flat(_parsed(text, path))]


def text_of(path: Path) -> str | None:
    """Return the content of a settings file, None if there is none. Raises UsageError."""
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
    raise _not_for_folders(key.name, value, key.variable, where)


def _not_for_folders(name: str, value: Any, variable: str, where: str) -> UsageError:
    shown = (
        value if isinstance(value, str) else "true" if value is True else "false" if value is False else "…"
    )
    return UsageError(
        say(
            f"当前目录的 medchat.toml 不能设置 {name} = {shown}："
            "随目录而来的文件不能启用插件、远程接口或代码，也不能放宽保护",
            f"medchat.toml in this folder may not set {name} = {shown}: a file that came with a folder"
            " may not enable plugins, remote endpoints or code, nor loosen protections",
        ),
        say("确实需要时，请", "if you want it, ")
        + (say(f"用环境变量 {variable}，或", f"set {variable} or ") if variable else "")
        + say("写进自己的配置（medchat config path）", "use your own configuration (medchat config path)"),
        where=where,
    )
