"""Paths: the project, the data of the tests, and the folder of recorded numbers that may be next to it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
#: Large recordings and real vocabularies: a user's machine has no such folder, and tests skip without it.
SHARED = Path(os.environ.get("MEDCHAT_SHARED") or ROOT.parent / "shared")
