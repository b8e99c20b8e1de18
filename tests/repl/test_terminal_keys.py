"""An Enter that is typed while lines are printed above the prompt still sends: the terminal's mode stays."""

from __future__ import annotations

import asyncio
import os
import select

from medchat.repl.keyboard import TerminalKeys

SECONDS = 10


def pressed_enter(master: int, keys: TerminalKeys) -> bytes:
    """Return what is read of an Enter that comes in while prompt_toolkit prints."""
    with keys.raw_mode(), keys.cooked_mode():
        os.write(master, b"\r")
        assert select.select([keys.fileno()], [], [], SECONDS)[0]  # the kernel has taken it, in this mode
    return os.read(keys.fileno(), 1)


def test_printing_keeps_enter_and_an_editor_gets_cooked_mode() -> None:
    master, slave = os.openpty()
    loop = asyncio.new_event_loop()
    with os.fdopen(slave, encoding="utf-8") as stdin:
        keys = TerminalKeys(stdin)
        first, second = loop.create_future(), loop.create_future()
        keys.keep_mode(first)
        keys.keep_mode(second)
        first.set_result(None)
        loop.run_until_complete(asyncio.sleep(0))
        assert pressed_enter(master, keys) == b"\r"
        second.set_result(None)
        loop.run_until_complete(asyncio.sleep(0))
        assert pressed_enter(master, keys) == b"\n"
    os.close(master)
    loop.close()
