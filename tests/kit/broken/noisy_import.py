"""The module greets."""

from __future__ import annotations

from abacus_backbone import Abacus

print("loading the plugin")

FAILS = "test_the_import_does_nothing"


class Broken(Abacus):
    pass
