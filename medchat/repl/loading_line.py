"""How far the loading of a model has come, on one line of stderr that goes when it is over."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from medchat.api import ChatModel
from medchat.chat.loading import Loading
from medchat.chat.setup import ChatSetup
from medchat.cli.output import stderr_redraws
from medchat.language import say
from medchat.repl.messages import loading_bar

#: Seconds between two drawings.
_PAUSE = 0.1
_CLEAR_LINE = "\r\x1b[K"


class _Line(Loading):
    """Draws itself as the bytes come."""

    drawn_at = 0.0

    def watch(self, read: int, total: int) -> None:
        """Take the bytes read so far and in all, and draw them now and then."""
        super().watch(read, total)
        now = time.monotonic()
        if now - self.drawn_at >= _PAUSE:
            self.drawn_at = now
            label = say("模型加载中", "loading the model")
            sys.stderr.write(f"{_CLEAR_LINE}{label} {loading_bar(self)}")
            sys.stderr.flush()


def load_with_line(opening: ChatSetup) -> ChatModel:
    """Load the model; show how far it has come where stderr can redraw a line. Raises what loading raises."""
    if not stderr_redraws():
        return opening.load()
    line = _Line()
    try:
        return replace(opening, options=replace(opening.options, watch=line.watch)).load()
    finally:
        if line.drawn_at:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
