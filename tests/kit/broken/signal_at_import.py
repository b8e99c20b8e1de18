"""The module takes a signal for itself."""

from __future__ import annotations

import signal

from abacus_backbone import Abacus

signal.signal(signal.SIGUSR1, lambda number, frame: None)

FAILS = "test_the_import_does_nothing"


class Broken(Abacus):
    pass
