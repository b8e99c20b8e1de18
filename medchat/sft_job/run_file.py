"""The TOML file of a run: read for `--config`, and written next to the result so that it can be reused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medchat import __version__
from medchat.errors import CheckpointError, UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.settings.files import entries_of
from medchat.settings.values import resolved
from medchat.sft_job.keys import EXTRA, GROUPS, KEYS
from medchat.sft_job.settings import Given, RunSettings, checked_value, unknown_key

FILE_NAME = "sft.toml"


def read_run_file(path: Path) -> Given:
    """Return the checked settings of the file at `path`. `./`, `../` and `~` are relative to that file.

    Raises CheckpointError if it is missing, UsageError with file, line and key for anything unknown (with a
    suggestion) or of the wrong type.
    """
    entries = entries_of(path)
    if entries is None:
        raise CheckpointError(
            say("找不到配置文件", "there is no such configuration file"),
            say("检查 --config 的路径", "check the path given to --config"),
            where=str(path),
        )
    found: dict[str, tuple[Any, str]] = {}
    for name, value, where in entries:
        if name not in KEYS and not name.startswith(EXTRA):
            raise unknown_key(name, where)
        value = checked_value(name, value, name, where)
        if name in KEYS:
            value = resolved(KEYS[name], value, path.absolute().parent)
        found[name] = (value, where)
    return found


def require_text(settings: RunSettings) -> None:
    """Raise UsageError for a value that TOML cannot represent: a path whose bytes are not UTF-8."""
    for name, row in settings.settings.items():
        for value in row.value if isinstance(row.value, tuple | list) else (row.value,):
            if isinstance(value, str | Path) and not _is_text(str(value)):
                raise UsageError(
                    say(
                        f"{name} 的路径不是 UTF-8，{FILE_NAME} 里记不下来",
                        f"{name}: the path is not UTF-8, and {FILE_NAME} cannot hold it",
                    ),
                    say(
                        "把这个文件或目录改成 UTF-8 的名字，再运行一次",
                        "rename the file or folder so that its name is UTF-8, and run it again",
                    ),
                    where=sanitize_line(str(value), 200),
                )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, as Python decodes a byte that is not UTF-8
        return False
    return True


def as_toml(settings: RunSettings) -> str:
    """Return the settings as a file for `read_run_file`, with the origin of each as a comment."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: RunSettings) -> Iterator[str]:
    yield f"# MedChat {__version__}: medchat sft --config {FILE_NAME}"
    for group in GROUPS:
        rows = [settings.settings[key.name] for key in group.keys]
        yield f"\n# {group.title}"
        for row in rows:
            if row.value is not None:
                # Derived settings could contradict the others with another number of processes.
                mark = "# " if row.follows else ""
                yield f"{mark}{row.name} = {toml_value(row.value)}  # {sanitize_line(row.origin, 200)}"
    extra = {name: row for name, row in settings.settings.items() if name.startswith(EXTRA)}
    if extra:
        yield f"\n[{EXTRA.removesuffix('.')}]"
    for name, row in extra.items():
        yield f"{toml_value(name.removeprefix(EXTRA))} = {toml_value(row.value)}  # {sanitize_line(row.origin, 200)}"


def toml_value(value: Any) -> str:
    """Return a string, number, boolean or list of those in TOML."""
    if isinstance(value, str | Path):
        # A basic string has JSON's escapes, and requires DEL to be escaped too.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
