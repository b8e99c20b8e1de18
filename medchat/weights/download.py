"""Bringing published weights into a folder: what is needed, whether it fits, every file checked.

What has come of a file is kept in the folder's `.medchat-pull`, so the same call after a lost connection,
Ctrl-C or a kill continues where it stopped. A file takes its place only once its checksum is right; one that
turns out wrong is set aside as NAME.wrong, never deleted.
"""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from medchat import paths
from medchat.api import KnownFile, KnownWeights
from medchat.disk import free_space
from medchat.errors import CheckpointError, MedchatError
from medchat.hashing import sha256_of
from medchat.language import say
from medchat.retry import Backoff
from medchat.units import amount
from medchat.weights import selection
from medchat.weights.catalogue import Catalogue
from medchat.weights.errors import translate_errors
from medchat.weights.folders import UNFINISHED
from medchat.weights.http import fetch
from medchat.weights.record import write_pull_record
from medchat.weights.source import Listing, RemoteFile, Source
from medchat.weights.thread_pool import DaemonThreadPool

#: Files fetched at once: mirrors often limit each connection.
WORKERS = 4
#: Left free on the disk, at least.
SPARE = 64 << 20


class Watcher(Protocol):
    """Receives a download's progress, from several threads."""

    def advance(self, count: int) -> None:
        """How many bytes were gained, or lost where it is negative."""
        ...

    def tell(self, line: str) -> None:
        """Something that the user should know, in the interface language."""
        ...


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What a pull would do. `present` bytes of `total` are in the folder already, whole or in part.

    `held`: the files were held against those published by the name; not so for another version of them.
    """

    known: KnownWeights
    source: Source
    listing: Listing
    files: tuple[RemoteFile, ...]
    folder: Path
    total: int
    present: int
    free: int
    held: bool


def plan_download(
    known: KnownWeights,
    source: Source,
    repository: str,
    revision: str | None,
    folder: Path,
    catalogue: Catalogue,
    watcher: Watcher,
) -> DownloadPlan:
    """Ask the source what there is, and hold it against what was published and against the disk.

    `revision` None is the published one. Raises CheckpointError (no such thing, incomplete, not what was
    published) or MedchatError (no answer, no space). Nothing is written.
    """
    own = repository == known.repository
    asked = revision or (known.revision if own else source.default_revision)
    listing = _ask(source, repository, asked, watcher)
    held = not revision or known.revision in (revision, listing.revision)
    if not held:
        other = catalogue.at_revision(known, listing.revision) if own else None
        known = replace(known, files=other.files if other else ())
    chosen = selection.choose(listing, known)
    selection.check_listing(listing, known, chosen)
    published = {file.name: file.sha256 for file in known.files}
    files = tuple(replace(file, sha256=file.sha256 or published.get(file.name, "")) for file in chosen)
    total = sum(file.size for file in files)
    present = sum(_present(folder, file) for file in files)
    _, free = free_space(folder)
    if total - present + SPARE > free:
        raise _no_space(folder, total - present, free)
    return DownloadPlan(known, source, listing, files, folder, total, present, free, held)


def _ask(source: Source, repository: str, revision: str, watcher: Watcher) -> Listing:
    backoff = Backoff(threading.Event(), lambda: _report_waiting(watcher))
    while True:
        try:
            return source.listing(repository, revision)
        except MedchatError:
            raise
        except Exception as error:
            with translate_errors(source):
                backoff.wait(error)


def pull(plan: DownloadPlan, watcher: Watcher) -> dict[str, KnownFile]:
    """Do what `plan` says and return the files with their checksums.

    Raises CheckpointError (a file is not what was published; the others are there) or MedchatError (no
    answer, disk full, another pull at work). Whatever ends it, what has come is kept for the next time.
    """
    paths.make_private(plan.folder)
    with (
        _alone(plan.folder / UNFINISHED) as nest,
        translate_errors(plan.source, plan.folder),
    ):
        work = _Work(plan, nest, watcher)
        DaemonThreadPool(work.bring, WORKERS).run(plan.files)
        if work.wrong:
            raise _wrong_checksum(plan, work.wrong)
        facts = {
            "source": f"{plan.source.address}/{plan.listing.repository}",
            "revision": plan.listing.revision,
        }
        write_pull_record(plan.folder, plan.known.name if plan.held else "", facts, work.right)
        shutil.rmtree(nest)
    return work.right


class _Work:
    """Bringing the files of one plan, by several threads."""

    def __init__(self, plan: DownloadPlan, nest: Path, watcher: Watcher) -> None:
        self._plan = plan
        self._nest = nest
        self._watcher = watcher
        self.right: dict[str, KnownFile] = {}
        self.wrong: dict[str, Path] = {}

    def bring(self, file: RemoteFile, cancel: threading.Event) -> None:
        """Make sure that the folder has `file`, whole and checked."""
        target = self._plan.folder / file.name
        if not (target.is_file() and self._is_right(file, target)):
            if target.exists():
                self._watcher.advance(-_present(self._plan.folder, file))
                aside = set_aside(target, target)
                self._watcher.tell(
                    say(
                        f"{file.name} 与要下载的不同，已改名为 {aside.name}",
                        f"{file.name} is not the one to be fetched and was renamed {aside.name}",
                    )
                )
                self._watcher.advance(_present(self._plan.folder, file))
            self._download(file, target, cancel)

    def _download(self, file: RemoteFile, target: Path, cancel: threading.Event) -> None:
        partial = _partial(self._plan.folder, file)
        backoff = Backoff(cancel, lambda: _report_waiting(self._watcher))
        request = self._plan.source.request(self._plan.listing, file)
        fetch(request, file.size, partial, cancel, backoff, self._watcher.advance)
        if self._is_right(file, partial):
            partial.replace(target)
        else:
            self.wrong[file.name] = set_aside(partial, target)

    def _is_right(self, file: RemoteFile, path: Path) -> bool:
        if not file.matches(path):
            return False
        self.right[file.name] = KnownFile(file.name, file.size, file.sha256 or sha256_of(path))
        return True


def set_aside(file: Path, name: Path) -> Path:
    """Rename `file` to `name` with an ending that no loader takes for weights, and return where it is."""
    number = 1
    while (place := name.with_name(f"{name.name}.wrong" + (f"-{number}" if number > 1 else ""))).exists():
        number += 1
    return file.rename(place)


@contextmanager
def _alone(nest: Path) -> Iterator[Path]:
    """Create the folder of partial files and keep other pulls out of it."""
    paths.make_private(nest)
    with (nest / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MedchatError(
                say(
                    "另一个 medchat models pull 正在下载到这里",
                    "another medchat models pull is downloading to this place",
                ),
                say("等它结束，或先停止它", "wait until it ends, or stop it first"),
                where=str(nest.parent),
            ) from error
        yield nest


def _partial(folder: Path, file: RemoteFile) -> Path:
    return folder / UNFINISHED / f"{file.name}.{file.key}.part"


def _present(folder: Path, file: RemoteFile) -> int:
    target, partial = folder / file.name, _partial(folder, file)
    if target.is_file() and target.stat().st_size == file.size:
        return file.size
    return min(partial.stat().st_size, file.size) if partial.is_file() else 0


def _report_waiting(watcher: Watcher) -> None:
    watcher.tell(say("连接中断或服务器繁忙，稍候重试……", "connection lost or server busy; trying again…"))


def _no_space(folder: Path, needed: int, free: int) -> MedchatError:
    return MedchatError(
        say(
            f"磁盘空间不够：还需要 {amount(needed)}，只剩 {amount(free)}",
            f"not enough space: {amount(needed)} are needed and {amount(free)} are free",
        ),
        say("腾出空间，或用 --dir 换一个磁盘", "make room, or choose another disk with --dir"),
        where=str(folder),
    )


def _wrong_checksum(plan: DownloadPlan, wrong: dict[str, Path]) -> CheckpointError:
    names = ", ".join(f"{name} → {place.name}" for name, place in sorted(wrong.items()))
    return CheckpointError(
        say(
            f"下载的文件与公布的校验和不符，已改名保留：{names}",
            f"the downloaded files do not match the published checksums and were set aside: {names}",
        ),
        say(
            f"再下载一次：medchat models pull {plan.known.name}；仍不符就换一个来源",
            f"fetch it again: medchat models pull {plan.known.name}; if they still do not match, choose another source",
        ),
        where=str(plan.folder),
    )
