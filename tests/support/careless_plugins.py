"""Plugins that violate the interface in one place each, as a careless author might write them.

Each is a few lines of Python that change `sound_plugin`, a command that shows the fault, and the expected
error. (PYTEST_DONT_REWRITE: imported by name.)
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from child_process import SOURCES
from cli_program import Call, Outcome
from plugin_packages import write_distribution

DISTRIBUTION = "third-careless"
#: The common first lines.
_HEAD = """
import sys, threading
from dataclasses import replace
from pathlib import Path
import click
from medchat import api
from medchat.api import *
from medchat.errors import *
from medchat.hookspecs import Finding, hookimpl
from sound_plugin import *

medchat_api_version = 1

def said(*deltas):
    yield from deltas
"""
_TAIL = """
@hookimpl
def medchat_backbones():
    return [Careless()]
"""


@dataclass(frozen=True)
class Careless:
    """One careless plugin: the lines that replace the sound ones, and the expected result.

    `verb` is the command and `typed` the lines of a chat; `where` names the method or hook in the error;
    `kept` is the answer that must have been saved; `adapter`: the inspected folder is an adapter's.
    """

    where: str
    model: str = ""
    backbone: str = ""
    template: str = ""
    recipe: str = ""
    module: str = ""
    verb: str = "ask"
    kept: str = ""
    code: int = 5
    typed: str = ""
    says: str = ""
    adapter: bool = False

    @property
    def ends_the_program(self) -> bool:
        """Whether nothing is said after the error: `infer` and `chat` continue with other questions first."""
        return self.verb.partition(" ")[0] not in ("infer", "chat")

    def install(self, site: Path) -> None:
        """Write it as a distribution into the folder `site`."""
        source = _HEAD
        for name, base, body in (
            ("Model", "SoundModel", self.model),
            ("Template", "SoundTemplate", self.template),
            ("Recipe", "SoundRecipe", self.recipe),
        ):
            source += f"\nclass {name}({base}):\n    pass\n" + indent(body, "    ") + "\n"
        own = "def load(self, options): return Model()\ndef template(self, options): return Template()\n"
        own += "recipes = {'full': Recipe()}\n" + self.backbone
        source += "\nclass Careless(SoundBackbone):\n" + indent(own, "    ") + "\n"
        source += self.module + ("" if "def medchat_backbones" in self.module else _TAIL)
        groups = {
            "medchat": {"careless": "careless_module"},
            "medchat.commands": {"careless-command": "careless_module"},
        }
        write_distribution(site, DISTRIBUTION, groups, {"careless_module": source})


def path_with(site: Path) -> str:
    """Return the PYTHONPATH of a process that has the plugins in `site` installed."""
    return os.pathsep.join([*SOURCES, str(site)])


class Installed:
    """A plugin, and the program that uses it."""

    def __init__(self, plugin: Careless, site: Path, call: Call) -> None:
        plugin.install(site)
        self._plugin, self._call, self.folder = plugin, call, site.parent
        (self.folder / "model").mkdir()
        if plugin.adapter:
            (self.folder / "model" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        questions = [{"instruction": f"问{number}", "output": "答"} for number in range(4)]
        (self.folder / "data.json").write_text(json.dumps(questions), encoding="utf-8")

    def run(self) -> Outcome:
        """Type the command by which one comes upon it."""
        return self._call(*self.words(), stdin=self._plugin.typed)

    def words(self) -> list[str]:
        """Return the words of that command."""
        verb, *more = self._plugin.verb.split()
        model = str(self.folder / "model")
        chosen = ["--backbone", "careless", "--model", model]
        data = ["--data", str(self.folder / "data.json"), "--output", str(self.folder / "out")]
        if self._plugin.verb.startswith("models quantize"):
            more += data[2:]
        words = {
            "export": [*data[2:], *chosen],
            "ask": ["头痛", *chosen],
            "chat": chosen,
            "infer": [*data, *chosen],
            "sft": [*data, *chosen],
            "models": [model, "--backbone", "careless"],
            "plugins": ["careless"],
        }.get(verb, [])
        return [verb, *more, *words]
