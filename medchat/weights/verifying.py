"""Hashing a folder again: is every file the one that was published, or at least the one that was pulled?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from medchat.api import KnownFile, KnownWeights
from medchat.checkpoints.manifest import FILE_NAME
from medchat.hashing import sha256_of
from medchat.regular_files import read_json
from medchat.weights.record import read_pull_record
from medchat.weights.selection import is_plain, is_weight

_LARGEST_INDEX = 64 << 20
#: What of a folder is looked at besides the files that something is known of.
_LOOKED_AT = (".json", ".model", ".txt")


class Verdict(StrEnum):
    """What was found out about one file."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # it is there; nobody stated a checksum


class ChecksumSource(StrEnum):
    """Who said what the file should be."""

    PUBLISHED = "published"
    RECORDED = "recorded"  # the folder's own list, written when it was pulled or trained
    INDEX = "index"  # the folder's index names it
    NOBODY = ""


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """One file of a folder."""

    name: str
    verdict: Verdict
    origin: ChecksumSource
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """A folder. `known` is the published weights it was held against, None if nothing fitted."""

    folder: Path
    known: KnownWeights | None
    files: tuple[FileVerdict, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong or missing."""
        return not any(file.verdict in (Verdict.WRONG, Verdict.MISSING) for file in self.files)


def verify(
    folder: Path,
    known: KnownWeights | None,
    candidates: Iterable[KnownWeights],
    on_bytes: Callable[[int], None],
) -> Verification:
    """Hash the files of `folder` and say of each whether it is right.

    What it should be is said by the folder's own list, which names published weights unless another version
    of them was asked for; without a list by `known`; else it is the candidate that most of its files are
    byte for byte. Published checksums go before the list's.
    """
    candidates = list(candidates)
    hashes = _Hashes(folder, on_bytes)
    record = read_pull_record(folder)
    if record is not None:
        known = next((one for one in candidates if one.name == record.weights), None)
    elif known is None:
        known = _recognise(folder, candidates, hashes)
    expected = {file.name: (file, ChecksumSource.RECORDED) for file in record.files} if record else {}
    if known:
        present = _weights_in(folder)
        other_layout = bool(present) and not any(file.name in present for file in known.files)
        for file in known.files:
            if file.sha256 and not (other_layout and is_weight(file.name)):
                expected[file.name] = (file, ChecksumSource.PUBLISHED)
    verdicts = [_judge(file, origin, hashes) for file, origin in expected.values()]
    named = _weights_in(folder) | _looked_at(folder)
    for name in sorted(named - set(expected)):
        size = hashes.size(name)
        there = size is not None
        verdicts.append(
            FileVerdict(
                name,
                Verdict.UNKNOWN if there else Verdict.MISSING,
                ChecksumSource.NOBODY if there else ChecksumSource.INDEX,
                size or 0,
            )
        )
    return Verification(folder, known, tuple(sorted(verdicts, key=lambda file: file.name)))


class _Hashes:
    """The checksums of a folder's files, each computed once."""

    def __init__(self, folder: Path, on_bytes: Callable[[int], None]) -> None:
        self._folder = folder
        self._on_bytes = on_bytes
        self._known: dict[str, str] = {}

    def size(self, name: str) -> int | None:
        file = self._folder / name
        return file.stat().st_size if file.is_file() else None

    def sha256(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = sha256_of(self._folder / name, self._on_bytes)
        return self._known[name]


def _judge(file: KnownFile, origin: ChecksumSource, hashes: _Hashes) -> FileVerdict:
    size = hashes.size(file.name)
    if size is None:
        return FileVerdict(file.name, Verdict.MISSING, origin, 0)
    if file.size and size != file.size:
        return FileVerdict(file.name, Verdict.WRONG, origin, size)
    digest = hashes.sha256(file.name)
    verdict = Verdict.OK if digest == file.sha256 else Verdict.WRONG
    return FileVerdict(file.name, verdict, origin, size, digest)


def _recognise(folder: Path, candidates: Iterable[KnownWeights], hashes: _Hashes) -> KnownWeights | None:
    """Return the candidate that most files are byte for byte; one weight file at least must be."""
    best: tuple[int, KnownWeights | None] = (0, None)
    for known in candidates:
        right = [
            file.name
            for file in known.files
            if file.sha256
            and hashes.size(file.name) == (file.size or hashes.size(file.name))
            and hashes.size(file.name) is not None
            and hashes.sha256(file.name) == file.sha256
        ]
        if any(is_weight(name) for name in right) and len(right) > best[0]:
            best = (len(right), known)
    return best[1]


def _weights_in(folder: Path) -> set[str]:
    """Return the names of weight files that are in the folder or that its index names."""
    names = {file.name for file in folder.iterdir() if file.is_file() and is_weight(file.name)}
    for index in folder.glob("*.index.json"):
        try:
            shards = read_json(index, _LARGEST_INDEX)["weight_map"].values()
            names |= {str(name) for name in shards if is_plain(str(name))}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return names


def _looked_at(folder: Path) -> set[str]:
    return {
        file.name
        for file in folder.iterdir()
        if file.is_file() and file.name.endswith(_LOOKED_AT) and file.name != FILE_NAME
    }
