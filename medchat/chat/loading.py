"""The progress of loading a model, seen from another thread, and stopping it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from medchat.errors import MedchatError
from medchat.language import say


class LoadingCancelled(MedchatError):
    """The user stopped loading the weights."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__(
            say("已取消加载", "loading was cancelled"),
            say("再次提问会重新加载", "the next question loads the model again"),
        )


@dataclass
class Loading:
    """One model being loaded: the backbone calls `watch`, the waiting thread sets `stop`.

    `read` and `total` are bytes of weights, both 0 if the backbone does not report them. `making_room`: the
    previous model was freed, because both would not fit; `ended` is set once the new one is loaded.
    """

    read: int = 0
    total: int = 0
    making_room: bool = False
    ended: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, read: int, total: int) -> None:
        """Note the bytes read so far and in all. Raises LoadingCancelled once `stop` is set."""
        self.read, self.total = read, total
        if self.stop.is_set():
            raise LoadingCancelled
