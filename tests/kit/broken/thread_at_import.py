"""The module starts a thread."""

from __future__ import annotations

import threading

from abacus_backbone import Abacus

threading.Thread(target=threading.Event().wait, args=(5.0,), daemon=True).start()

FAILS = "test_the_import_does_nothing"


class Broken(Abacus):
    pass
