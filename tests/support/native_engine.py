"""Whether the native engine was compiled here: without a compiler its tests are skipped, and say so."""

from __future__ import annotations

import pytest

from medchat.inference.cpu_engine.library import LIBRARY_FILE

COMPILED = pytest.mark.skipif(not LIBRARY_FILE.is_file(), reason="the native engine was not compiled")
#: For tests that hold on either engine.
EITHER_ENGINE = pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=COMPILED)])
