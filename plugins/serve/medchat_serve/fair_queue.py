"""Who is answered next: a bounded queue in which clients take turns, so that one with many requests holds up nobody."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from itertools import zip_longest
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueFullError(Exception):
    """So many wait already."""


class FairQueue(Generic[T]):
    """Items of several clients; each client's come in their order, the clients' in turn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, client: str, item: T) -> None:
        """Add an item. Raises QueueFullError if as many wait as may."""
        with self._changed:
            if self._closed or len(self) >= self._most:
                raise QueueFullError
            self._waiting.setdefault(client, deque()).append(item)
            self._changed.notify()

    def take(self, *, wait: bool = True) -> T | None:
        """Wait for the next item and return it; None once the queue was closed and is empty.

        Without `wait`: None if it is empty.
        """
        with self._changed:
            while not self._waiting:
                if self._closed or not wait:
                    return None
                self._changed.wait()
            client, items = self._waiting.popitem(last=False)
            item = items.popleft()
            if items:
                self._waiting[client] = items  # behind the others
            return item

    def remove(self, item: T) -> bool:
        """Take an item out and return whether it was there."""
        with self._changed:
            for client, items in self._waiting.items():
                if item in items:
                    items.remove(item)
                    if not items:
                        del self._waiting[client]
                    return True
            return False

    def in_order(self) -> list[T]:
        """Return what waits in the order in which it is taken if nothing more comes."""
        with self._changed:
            rounds = zip_longest(*self._waiting.values())
            return [item for each in rounds for item in each if item is not None]

    def close(self) -> None:
        """Let `take` end once nothing waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return sum(len(items) for items in self._waiting.values())
