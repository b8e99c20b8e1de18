"""How far the loading of a model has come, on one line of stderr that goes when it is over."""

from __future__ import annotations

from dataclasses import replace

from medchat.api import ChatModel
from medchat.chat.loading import Loading
from medchat.chat.setup import ChatSetup
from medchat.cli.moving_line import MovingLine
from medchat.language import say
from medchat.repl.messages import loading_bar


def load_with_line(opening: ChatSetup) -> ChatModel:
    """Load the model; show how far it has come where stderr can redraw a line. Raises what loading raises."""
    with MovingLine() as line:
        if not line.moves:
            return opening.load()
        loading = Loading()

        def watch(read: int, total: int) -> None:
            loading.watch(read, total)
            line.show(f"{say('模型加载中', 'loading the model')} {loading_bar(loading)}")

        return replace(opening, options=replace(opening.options, watch=watch)).load()
