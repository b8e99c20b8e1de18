"""What a place on the network offers: files, their sizes and checksums, and how to ask for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from medchat.hashing import git_blob_of, sha256_of

#: Seconds without a byte after which a connection counts as lost.
TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the source describes it. `sha256` or `blob` (git's id) is "" where it states none."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""

    @property
    def key(self) -> str:
        """What names this content: a partial download continues only where this is unchanged."""
        return (self.sha256 or self.blob or f"size{self.size}")[:16]

    def matches(self, file: Path) -> bool:
        """Say whether `file` is this, as far as the source lets one tell."""
        if file.stat().st_size != self.size:
            return False
        if self.sha256:
            return sha256_of(file) == self.sha256
        return not self.blob or git_blob_of(file) == self.blob


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one revision. `revision` is the exact one, where the source tells."""

    repository: str
    revision: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """How to ask for one file."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A place that weights are pulled from. Its methods raise what the network raises."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def address(self) -> str:
        """Where it is: the scheme and host."""
        ...

    @property
    def default_revision(self) -> str:
        """What it calls the newest state of a repository."""
        ...

    def listing(self, repository: str, revision: str) -> Listing:
        """Return what the repository holds. Raises CheckpointError if there is no such thing."""
        ...

    def request(self, listing: Listing, file: RemoteFile) -> DownloadRequest:
        """Return how to ask for `file`."""
        ...
