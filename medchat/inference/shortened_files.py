"""What happens when a file is made shorter while its weights are in use: the program says so and ends.

The system has nothing to put in place of the pages that are gone and sends SIGBUS to whoever reads them. Nothing
can be computed after that, and Python's own signal handlers would never run: the thread would read again and again.
So the handler is a C function pointer that ctypes makes. It is called where memory is read, and there the interpreter
is either not held by that thread or held in a state in which Python may run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

from medchat.errors import CheckpointError
from medchat.language import say
from medchat.sanitize import sanitize_line

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)

#: What each file in use has at least, in bytes.
_in_use: dict[Path, int] = {}
#: The handler, kept alive, and what was in its place before.
_installed: list[Any] = []


def end_if_shortened(file: Path) -> None:
    """From now on a `file` that is made shorter ends the program with one sentence and the exit code of a bad file.

    For files that are mapped. Where the system has no such signal, nothing is done.
    """
    _in_use[file] = file.stat().st_size
    if _installed or not hasattr(signal, "SIGBUS"):
        return
    handler = _Handler(_on_bus_error)
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    before = library.signal(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    _installed.extend((handler, library, before))


def _on_bus_error(number: int) -> None:
    shortened = next((file for file, size in _in_use.items() if _size(file) < size), None)
    if shortened is None:
        # Something else: the read is tried again and goes to whoever was there before.
        _, library, before = _installed
        library.signal(number, before)
        return
    with suppress(OSError, ValueError, termios.error):
        _make_terminal_sane()
    where = sanitize_line(str(shortened))
    what = say(
        f"错误：权重文件在使用中被截短（{where}）",
        f"Error: a weight file was made shorter while it was in use ({where})",
    )
    remedy = say(
        "下一步：重新下载或重新量化；已保存的量化权重用 medchat models clean 清除",
        "Next: fetch or quantise it again; kept quantised weights are removed by medchat models clean",
    )
    os.write(2, f"\n{what}\n{remedy}\n".encode(errors="backslashreplace"))
    os._exit(CheckpointError.exit_code)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # removed: whoever has it mapped keeps it
        return sys.maxsize


def _make_terminal_sane() -> None:
    """Give back what the chat changes while an answer comes."""
    flags = termios.tcgetattr(0)
    flags[0] |= termios.ICRNL | termios.IXON
    flags[3] |= termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG
    termios.tcsetattr(0, termios.TCSANOW, flags)
