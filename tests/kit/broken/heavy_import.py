"""The engine is imported with the module."""

from __future__ import annotations

import sys
from types import ModuleType

from abacus_backbone import Abacus

sys.modules["llama_cpp"] = ModuleType("llama_cpp")  # as `import llama_cpp` would

FAILS = "test_the_import_is_light"


class Broken(Abacus):
    pass
