"""How far the loading of a model has come, seen from another thread, and how it is stopped."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from medchat.errors import MedchatError
from medchat.language import say


class LoadingCancelled(MedchatError):
    """The user would not wait for the weights."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__(
            say("已取消加载", "loading was cancelled"),
            say("再次提问会重新加载", "the next question loads the model again"),
        )


@dataclass
class Loading:
    """One model being loaded: `watch` is what the backbone calls, `stop` is set by whoever waits.

    `read` and `total` are bytes of weights, both 0 if the backbone does not tell. `making_room` says that the
    model before was given back, because both would not fit; `ended` is set once the new one is there.
    """

    read: int = 0
    total: int = 0
    making_room: bool = False
    ended: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, read: int, total: int) -> None:
        """Take the bytes read so far and in all. Raises LoadingCancelled once `stop` is set."""
        self.read, self.total = read, total
        if self.stop.is_set():
            raise LoadingCancelled
