"""A watcher of a training run that keeps its events, and can stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medchat.api import SFTEvent, SFTProgress, SFTReport


@dataclass
class Watcher:
    """Keeps every event and the finished report; `react` may act on one (stop the run, kill it)."""

    react: Callable[[SFTEvent], None] = lambda event: None
    events: list[SFTEvent] = field(default_factory=list)
    finished: list[tuple[Path, SFTReport]] = field(default_factory=list)
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def progress(self) -> list[SFTProgress]:
        """The logged steps."""
        return [event for event in self.events if isinstance(event, SFTProgress)]

    def on_event(self, event: SFTEvent) -> None:
        """Keep the event."""
        self.events.append(event)
        self.react(event)

    def finish(self, folder: Path, report: SFTReport) -> None:
        """Keep the report; a file shows that this was called before the manifest was written."""
        self.finished.append((folder, report))
        (folder / "watched.txt").write_text("watched\n", encoding="utf-8")
