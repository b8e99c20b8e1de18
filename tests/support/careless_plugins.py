"""Plugins that violate the interface in one place each, as a careless author might write them.

Each is a few lines of Python that change `sound_plugin`, a command that shows the fault, and the expected
error. (PYTEST_DONT_REWRITE: imported by name.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

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
