"""What the interpreters that tests start have imported."""

from __future__ import annotations

import pytest
from child_process import PROGRAM, TORCH, child_environment, run_python


@pytest.mark.parametrize(
    ("imported", "module"),
    [(PROGRAM, "medchat.cli.program"), pytest.param(TORCH, "peft", marks=pytest.mark.torch)],
)
def test_they_have_imported_whatever_libraries_have_set_in_this_process(
    imported: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has to import torch first takes ten times as long, and no other test would show it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor")
    code = f"import sys; print({module!r} in sys.modules)"
    done = run_python("-c", code, environment=child_environment(), imported=imported)
    assert done.stdout == b"True\n", done.stderr.decode()
