"""Plugin names come from metadata alone, by the rules of importlib.metadata, whatever the files hold."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from locations import ROOT
from packaging.utils import canonicalize_name
from plugin_packages import write_distribution

from medchat import __version__
from medchat.builtin import BUILTIN_BACKBONES, BUILTIN_COMMANDS
from medchat.registry.metadata import GROUPS, allowed_names, conflicts, parse_entry_points, scan

TABLE = [
    (group, plugin.name, plugin.module)
    for group, plugins in (("medchat", BUILTIN_BACKBONES), ("medchat.commands", BUILTIN_COMMANDS))
    for plugin in plugins
]
BUILTIN = {(*row, "medchat", __version__) for row in TABLE}


def by_the_library(path: list[str]) -> list[tuple[str, str, str, str, str]]:
    """What importlib.metadata finds: the first distribution of a name wins, as in `entry_points()`."""
    found, seen = [], set()
    for distribution in importlib.metadata.distributions(path=path):
        name = canonicalize_name(distribution.metadata["Name"])
        if name not in seen:
            seen.add(name)
            found += [
                (entry.group, entry.name, entry.value, distribution.metadata["Name"], distribution.version)
                for entry in distribution.entry_points
                if entry.group in GROUPS
            ]
    return found


def scanned(path: list[str]) -> list[tuple[str, ...]]:
    """What we find, less the fallback to the built-in table."""
    return [tuple(entry) for entry in scan(path) if tuple(entry) not in BUILTIN]


def test_this_environment_is_seen_as_the_library_sees_it() -> None:
    ours = [(entry.group, entry.name, entry.value) for entry in scan()]
    library = importlib.metadata.entry_points()
    theirs = [(e.group, e.name, e.value) for group in GROUPS for e in library.select(group=group)]
    assert sorted(ours) == sorted(theirs + [entry for entry in TABLE if entry not in theirs])


def test_fabricated_distributions_are_seen_as_the_library_sees_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_distribution(
        first, "medchat-one", {"medchat": {"one": "one_plugin", "two": "one:plugin.attr [extra]"}}
    )
    write_distribution(
        first, "other", {"console_scripts": {"medchat": "x:y"}, "medchat.commands": {"c": "m"}}
    )
    write_distribution(first, "empty", {})
    write_distribution(second, "Medchat.One", {"medchat": {"shadowed": "never"}})  # the same project: hidden
    write_distribution(second, "empty", {"medchat": {"hidden": "never"}}, version="2.0")
    write_distribution(second, "old-style", {"medchat.extensions": {"old": "old"}}, suffix=".egg-info")
    write_distribution(
        second, "odd", "# note\n\n[medchat]\n  spaced  =  spaced_plugin:x = y  \n[other]\na=b\n"
    )
    path = [str(first), str(tmp_path / "absent"), str(second), str(first)]
    assert sorted(scanned(path)) == sorted(by_the_library(path))
    assert len(scanned(path)) == 5


HEADERS = ("[medchat]", "[medchat.extensions]", "[medchat.commands]", "[console_scripts]", " [medchat] ")
ENTRIES = (
    "a = b",
    "a=b:c",
    " c  =  d = e ",
    "ä = ö",
    "x.y-z = m.n:o.p [q]",
    "",
    "  ",
    "\t# x = y",
    "# [medchat]",
)
LINES = st.sampled_from(HEADERS + ENTRIES)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_every_well_formed_file_is_read_as_the_library_reads_it(text: str) -> None:
    sections = importlib.metadata.EntryPoints._from_text("[none]\n" + text)  # type: ignore[attr-defined]
    assert parse_entry_points(text) == [(e.group, e.name, e.value) for e in sections if e.group in GROUPS]


@given(st.text())
def test_no_text_makes_the_parser_raise(text: str) -> None:
    for group, name, value in parse_entry_points("[medchat]\n" + text):
        assert group in GROUPS
        assert name
        assert value


def test_garbled_metadata_harms_nobody_else(tmp_path: Path) -> None:
    write_distribution(tmp_path, "good", {"medchat": {"good": "good"}})
    no_equals = write_distribution(
        tmp_path, "no-equals", "[medchat]\nnonsense\n= value\nname =\nfine = fine\n"
    )
    binary = write_distribution(tmp_path, "binary", "")
    (binary / "entry_points.txt").write_bytes(b"[medchat]\nx\xff = \xfe\nok = ok\n\x00\x01medchat")
    headless = write_distribution(tmp_path, "headless", {"medchat": {"headless": "headless"}}, version="3.1")
    (headless / "METADATA").unlink()
    folder = write_distribution(tmp_path, "folder", "")
    (folder / "entry_points.txt").unlink()
    (folder / "entry_points.txt").mkdir()
    endless = write_distribution(tmp_path, "endless", "")
    (endless / "entry_points.txt").unlink()
    (endless / "entry_points.txt").symlink_to("entry_points.txt")
    (tmp_path / "a_file-1.0.dist-info").write_text("[medchat]\nx = y")
    (tmp_path / "dangling-1.0.dist-info").symlink_to(tmp_path / "nowhere")
    found = {entry.name: entry for entry in scan([str(tmp_path), str(no_equals / "METADATA"), "\0"])}
    assert {"good", "fine", "ok", "headless"} <= set(found)
    assert (found["headless"].distribution, found["headless"].version) == ("headless", "3.1")


def test_the_builtin_table_stands_in_where_nothing_is_installed(tmp_path: Path) -> None:
    assert {tuple(entry) for entry in scan([str(tmp_path)])} == BUILTIN
    write_distribution(tmp_path, "medchat", {"medchat": {"chatglm": "from_metadata"}}, version="9")
    installed = [entry for entry in scan([str(tmp_path)]) if entry.name == "chatglm"]
    assert [(entry.value, entry.version) for entry in installed] == [("from_metadata", "9")]


def test_two_distributions_claiming_one_name_are_a_conflict_naming_both(tmp_path: Path) -> None:
    write_distribution(tmp_path, "one", {"medchat": {"same": "one"}, "medchat.commands": {"same": "one"}})
    write_distribution(tmp_path, "two", {"medchat": {"same": "two", "chatglm": "two"}})
    found = conflicts(scan([str(tmp_path)]))
    assert set(found) == {("medchat", "same"), ("medchat", "chatglm")}
    assert {entry.distribution for entry in found["medchat", "same"]} == {"one", "two"}
    assert {entry.distribution for entry in found["medchat", "chatglm"]} == {"medchat", "two"}


@pytest.mark.parametrize(("value", "names"), [(None, None), ("", set()), (" a, b,,", {"a", "b"})])
def test_the_allow_list_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, names: set[str] | None
) -> None:
    if value is not None:
        monkeypatch.setenv("MEDCHAT_PLUGINS", value)
    assert allowed_names() == names


def test_scanning_imports_no_plugin_and_nothing_that_is_slow(tmp_path: Path) -> None:
    write_distribution(tmp_path, "loud", {"medchat": {"loud": "loud"}}, {"loud": "raise SystemExit(9)"})
    code = "import sys, {}; {}; print(__import__('json').dumps(list(sys.modules)))"
    root = str(ROOT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(tmp_path)])}

    def modules(imported: str, call: str) -> set[str]:
        command = [sys.executable, "-c", code.format(imported, call)]
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return set(json.loads(output))

    scan_call = "assert 'loud' in [e.name for e in medchat.registry.metadata.scan()]"
    added = modules("medchat.registry.metadata", scan_call) - modules("os", "pass")
    assert added <= {
        "medchat",
        "medchat.builtin",
        "medchat.language",
        "medchat.regular_files",
        "medchat.registry",
        "medchat.registry.metadata",
        "__future__",
    } | {"collections", "_collections", "keyword", "operator", "_operator", "reprlib", "itertools", "errno"}
