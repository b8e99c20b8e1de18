"""Which call of a plugin the main thread is in, for whoever has to say why the program does not come back.

A plugin's native code may keep the main thread: then nothing of Python's runs there, and another thread asks here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from medchat.registry.metadata import PluginEntry


@dataclass(frozen=True, slots=True, eq=False)
class PluginCall:
    """A call of the plugin behind `entry`: the hook or the method `where`, "" for its import."""

    entry: PluginEntry
    where: str

    def failed(self, why: str) -> str:
        """Return the reason `why` with the method before it."""
        return f"{self.where}: {why}" if self.where else why


#: The calls of the main thread that have begun and not ended, the innermost last. An answer is one from its first
#: piece to its last, also while somebody looks at a piece of it.
_under_way: list[PluginCall] = []


@contextmanager
def under_way(entry: PluginEntry, where: str) -> Iterator[None]:
    """Within this block a call of the plugin is under way. Other threads than the main one are not noted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    call = PluginCall(entry, where)
    _under_way.append(call)
    try:
        yield
    finally:
        # Not always the last: an answer that nobody reads to its end closes when it is collected.
        _under_way.remove(call)


def call_under_way() -> PluginCall | None:
    """Return the innermost call that the main thread is in, None if it is in none. May be asked from any thread."""
    calls = _under_way[-1:]
    return calls[0] if calls else None
