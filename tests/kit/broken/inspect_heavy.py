"""`inspect` imports the engine."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from abacus_backbone import Abacus

from medchat.api import ModelCard

FAILS = "test_inspect_imports_no_torch"


class Broken(Abacus):
    def inspect(self, path: Path) -> ModelCard | None:
        sys.modules.setdefault("llama_cpp", ModuleType("llama_cpp"))  # as `import llama_cpp` would
        return super().inspect(path)
