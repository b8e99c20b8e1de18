"""Plugin names from installed metadata, without importing any plugin.

Reads `entry_points.txt` in the `*.dist-info` and `*.egg-info` folders on `sys.path`, by the rules of
`importlib.metadata` (a test holds the two equal) but without importing it: it costs several times the
start of Python itself, and this module is on the path of `medchat --help`. For the same reason nothing
here imports `typing`, `dataclasses`, `re`, `enum` or `pathlib`. A file that cannot be read or makes no sense
yields no entries; it never raises.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple

from medchat.regular_files import read_regular

BACKBONES = "medchat"
EXTENSIONS = "medchat.extensions"
COMMANDS = "medchat.commands"
GROUPS = (BACKBONES, EXTENSIONS, COMMANDS)

#: One entry point. `value` is `module` or `module:attribute`; `distribution` its project's own spelling.
PluginEntry = namedtuple("PluginEntry", ["group", "name", "value", "distribution", "version"])

_MAX_BYTES = 1 << 20


def scan(path: list[str] | None = None) -> list[PluginEntry]:
    """Return every MedChat entry point on `path` (default `sys.path`), in the order found.

    The first distribution of a name wins, as for imports. Built-in plugins that no installed
    `medchat` lists (a source tree that was never installed) come from `medchat.builtin`. Two entries
    may claim one name: see `conflicts`. Some may be left out by the user: see `allowed_names`.
    """
    entries: list[PluginEntry] = []
    seen = set()
    for folder in sys.path if path is None else path:
        for info in _metadata_folders(folder or "."):
            key = _normalized(info)
            if key not in seen:
                seen.add(key)
                entries += _entries_of(f"{folder or '.'}/{info}", info)
    return entries + _builtin_entries(entries)


def metadata_folder(distribution: str, path: list[str] | None = None) -> str:
    """Return the folder of the metadata that counts for that distribution on `path`, "" if there is none."""
    wanted = _normalized(distribution.replace("-", "_") + ".dist-info")
    for folder in sys.path if path is None else path:
        for info in _metadata_folders(folder or "."):
            if _normalized(info) == wanted:
                return f"{folder or '.'}/{info}"
    return ""


def conflicts(entries: list[PluginEntry]) -> dict[tuple[str, str], list[PluginEntry]]:
    """Return the entries that claim one name in one group, by (group, name). None of them is used."""
    claims: dict[tuple[str, str], list[PluginEntry]] = {}
    for entry in entries:
        claims.setdefault((entry.group, entry.name), []).append(entry)
    return {key: claimants for key, claimants in claims.items() if len(claimants) > 1}


def allowed_names() -> set[str] | None:
    """Return the names in `MEDCHAT_PLUGINS` ("a,b": only these are used), or None where it is not set.

    Set but empty allows none. Built-in backbones are plugins like any other.
    """
    wanted = os.environ.get("MEDCHAT_PLUGINS")
    if wanted is None:
        return None
    return {name.strip() for name in wanted.split(",") if name.strip()}


def strict() -> bool:
    """Say whether `MEDCHAT_STRICT=1` lets what a plugin raises through, with its traceback, for who writes it."""
    return os.environ.get("MEDCHAT_STRICT") == "1"


def parse_entry_points(text: str) -> list[tuple[str, str, str]]:
    """Return (group, name, value) for each MedChat entry point in the text of an `entry_points.txt`."""
    found = []
    group = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if group in GROUPS and equals and name and value:
            found.append((group, name, value))
    return found


def _metadata_folders(folder: str) -> list[str]:
    try:
        names = [os.fsdecode(name) for name in os.listdir(folder)]  # noqa: PTH208  (pathlib: see above)
    except (OSError, ValueError):  # not a folder (a zip file, say), not there, not ours to read
        return []
    return [name for name in names if name.lower().endswith((".dist-info", ".egg-info"))]


def _normalized(info: str) -> str:
    """The distribution's name as the first-wins rule compares it: a run of `-`, `_` and `.` is one `_`."""
    stem = info.lower().rpartition(".")[0].partition("-")[0].replace(".", "_")
    while "__" in stem:
        stem = stem.replace("__", "_")
    return stem


def _entries_of(folder: str, info: str) -> list[PluginEntry]:
    text = _text(f"{folder}/entry_points.txt")
    found = parse_entry_points(text) if "medchat" in text else []
    if not found:
        return []
    name, version = _name_and_version(folder, info)
    return [PluginEntry(*entry, name, version) for entry in found]


def _name_and_version(folder: str, info: str) -> tuple[str, str]:
    name, _, version = info.rpartition(".")[0].partition("-")
    headers = _text(f"{folder}/METADATA") or _text(f"{folder}/PKG-INFO")
    for line in headers.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if key.lower() == "name":
            name = value.strip()
        elif key.lower() == "version":
            version = value.strip()
    return name, version


def _text(path: str) -> str:
    """Return the file's text, "" where it cannot be read. Bytes that are not UTF-8 harm their line alone."""
    try:
        return read_regular(path, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _builtin_entries(found: list[PluginEntry]) -> list[PluginEntry]:
    from medchat import __version__
    from medchat.builtin import BUILTIN_BACKBONES, BUILTIN_COMMANDS

    listed = {(entry.group, entry.name) for entry in found if entry.distribution == "medchat"}
    return [
        PluginEntry(group, plugin.name, plugin.module, "medchat", __version__)
        for group, plugins in ((BACKBONES, BUILTIN_BACKBONES), (COMMANDS, BUILTIN_COMMANDS))
        for plugin in plugins
        if (group, plugin.name) not in listed
    ]
