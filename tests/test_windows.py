"""On Windows proper the program says what it needs, before it imports what is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest
from child_process import child_environment

#: As on Windows: the platform's name, and no modules of Unix.
PROGRAM = """
import sys
sys.platform = "win32"
for name in ("fcntl", "resource", "pty", "termios", "click"):
    sys.modules[name] = None
from medchat.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(("language", "sentence"), [("zh", "需要 WSL 2"), ("en", "needs WSL 2")])
@pytest.mark.parametrize("words", [(), ("ask", "问"), ("--version",)])
def test_windows_is_told_in_one_sentence_that_it_needs_wsl(
    language: str, sentence: str, words: tuple[str, ...]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=child_environment(MEDCHAT_LANG=language),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert sentence in ended.stderr
