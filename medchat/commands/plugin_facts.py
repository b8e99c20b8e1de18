"""The facts about an installed plugin: its origin, what it offers, whether its files are unchanged."""

from __future__ import annotations

import base64
import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from medchat.api import Option
from medchat.api.option import declared_options
from medchat.errors import MedchatError
from medchat.hashing import sha256_of
from medchat.registry import Registry
from medchat.registry.metadata import BACKBONES, COMMANDS, EXTENSIONS, PluginEntry, metadata_folder
from medchat.regular_files import read_regular

#: The labels of the entry-point groups in lists.
KINDS = {BACKBONES: "backbone", EXTENSIONS: "extension", COMMANDS: "command"}
#: The limit of a RECORD in bytes: some hundred thousand files.
_LARGEST_RECORD = 16 << 20


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """A plugin's files compared with the hashes recorded at its installation.

    `same` counts the unchanged ones. No file is `same`, `changed` or `missing` if no hashes were recorded (an
    editable install).
    """

    same: int = 0
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def plugin_facts(registry: Registry, entry: PluginEntry) -> dict[str, Any]:
    """Import the plugin of `entry` and return the facts about it, in plain values. Raises PluginError."""
    plugin = registry.plugin(entry.group, entry.name)
    module = entry.value.partition("[")[0].partition(":")[0].strip()
    facts: dict[str, Any] = {
        "name": entry.name,
        "kind": KINDS[entry.group],
        "distribution": entry.distribution,
        "version": entry.version,
        "module": entry.value,
        "file": str(getattr(sys.modules.get(module), "__file__", "") or ""),
        "api_version": getattr(plugin.plugin, "medchat_api_version", None),
        "hooks": list(plugin.hooks),
        "record": asdict(check_record(entry.distribution, module.partition(".")[0])),
    }
    return facts | (_backbone_facts(registry, entry.name) if entry.group == BACKBONES else {})


def _backbone_facts(registry: Registry, name: str) -> dict[str, Any]:
    backbone = registry.backbone(name)
    with backbone.guard():
        generation = backbone.generation
        return {
            "summary": dict(backbone.summary),
            "methods": list(backbone.recipes),
            "templates": [template.name for template in registry.templates_of(name)],
            "capabilities": asdict(backbone.capabilities),
            "options": {
                key: option_facts_of(option) for key, option in declared_options(backbone.load_keys).items()
            },
            "generation": {
                key: None if key in generation.unset else getattr(generation, key)
                for key in ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
            },
            "known_weights": [
                {
                    "name": known.name,
                    "title": known.title,
                    "source": known.source,
                    "licence": known.licence,
                    "template": known.template,
                }
                for known in backbone.known_weights
            ],
        }


def option_facts_of(option: Option) -> dict[str, Any]:
    """Return the allowed values of an option, in plain values."""
    return {
        "type": option.kind.__name__.lower(),
        "choices": list(option.choices),
        "low": option.low,
        "high": option.high,
        "default": None if option.default is None else str(option.default),
        "summary": dict(option.summary),
    }


def check_plugin(registry: Registry, entry: PluginEntry) -> str:
    """Import the plugin and request all that it offers; return its error, "" if there is none."""
    try:
        if entry.group == COMMANDS:
            registry.command(entry.name, click.Command)
        facts = plugin_facts(registry, entry)
    except MedchatError as error:
        return error.what
    changed = facts["record"]["changed"] + facts["record"]["missing"]
    return ", ".join(changed[:3])


def check_record(distribution: str, package: str, path: list[str] | None = None) -> RecordCheck:
    """Compare the files of the top-level `package` with its RECORD on `path` (default: sys.path)."""
    folder = metadata_folder(distribution, path)
    same, changed, missing = 0, [], []
    for name, noted in _noted(Path(folder) / "RECORD") if folder else ():
        if name.partition("/")[0].removesuffix(".py") != package or name.endswith(".pyc"):
            continue
        file = Path(folder).parent / name
        if not file.is_file():
            missing.append(name)
        elif base64.urlsafe_b64encode(bytes.fromhex(sha256_of(file))).decode().rstrip("=") != noted:
            changed.append(name)
        else:
            same += 1
    return RecordCheck(same, tuple(changed), tuple(missing))


def _noted(record: Path) -> Iterator[tuple[str, str]]:
    """Yield path and SHA-256 (in base64, as in RECORD) of each file that has one."""
    try:
        text = read_regular(record, _LARGEST_RECORD).decode("utf-8", "replace")
    except OSError:  # an egg-info has none
        return
    for row in csv.reader(text.splitlines()):
        if len(row) >= 2 and row[1].startswith("sha256=") and ".." not in Path(row[0]).parts:
            yield row[0], row[1].removeprefix("sha256=")
