"""The interactive screen. `run_repl` chats on a terminal, `run_lines` reads one question a line."""

from __future__ import annotations

from typing import IO

from medchat.repl.startup import Startup, afresh

__all__ = ["Startup", "afresh", "run_lines", "run_repl"]


def run_repl(startup: Startup) -> int:
    """Chat on the terminal until the user leaves; see `medchat.repl.terminal`."""
    from medchat.repl.terminal import chat_on_terminal as run

    return run(startup)


def run_lines(startup: Startup, stream: IO[bytes]) -> int:
    """Answer one question an input line; see `medchat.repl.lines`."""
    from medchat.repl.lines import chat_on_lines as run

    return run(startup, stream)
