"""The output folder of a run: `run.json`, the log of steps, checkpoints, and at the end the result.

    OUTPUT/run.json       what was requested, and a fingerprint of the data and of the model
    OUTPUT/metrics.jsonl  one line a logged step
    OUTPUT/.lock          held while a run is at it; never unlinked while the folder stands
    OUTPUT/checkpoints/   step-00000032/ …, each whole or not there (`checkpoints`)
    OUTPUT/…              the result, as `--model` or `--adapter` takes it; `manifest.json` last

Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat import __version__
from medchat.api import SFTOptions, SFTReport
from medchat.checkpoints import manifest
from medchat.disk import translate_disk_errors
from medchat.errors import UsageError
from medchat.language import say
from medchat.training import checkpoint as checkpoints
from medchat.training import run_record
from medchat.training.previous_run import LOCK_NAME, PARTIAL, check_output, entries, occupied

if TYPE_CHECKING:
    from medchat.training.single_process import ProcessGroup

METRICS_NAME = "metrics.jsonl"
#: The folder of TensorBoard's files.
TRACKER_NAME = "tensorboard"

#: Files of the run that are not part of its result.
RUN_NAMES = (run_record.FILE_NAME, METRICS_NAME, LOCK_NAME, TRACKER_NAME, checkpoints.FOLDER_NAME)
#: The files that make a folder loadable: written after the weights, and removed first.
LOADABLE_NAMES = (manifest.FILE_NAME, "config.json", "adapter_config.json")


class RunFolder:
    """A locked output folder, made by `open_run_folder`."""

    def __init__(self, path: Path, notes: tuple[str, ...] = (), resumed: bool = False) -> None:
        self.path = path
        #: Warnings about resuming, in the interface language.
        self.notes = notes
        #: Whether an earlier run with the same settings was started here.
        self.resumed = resumed
        #: Whether a complete result is here: from then on nothing is removed.
        self.has_result = False

    @property
    def metrics(self) -> Path:
        """The log of steps."""
        return self.path / METRICS_NAME

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints; it may not exist yet."""
        return self.path / checkpoints.FOLDER_NAME

    @property
    def last_step(self) -> int:
        """The optimizer step of the newest checkpoint, 0 if there is none."""
        return max((checkpoint.step for checkpoint in checkpoints.listed(self.checkpoints)), default=0)

    @property
    def has_log(self) -> bool:
        """Whether a step was logged."""
        return self.metrics.is_file() and self.metrics.stat().st_size > 0

    def way_on(self) -> str:
        """Return how to continue after a failure, in the interface language."""
        step = self.last_step
        if not step and (self.resumed or self.has_log):
            return say("在同一条命令后加上 --resume", "run the same command with --resume")
        if not step:
            return say("重新运行同一条命令", "run the same command again")
        return say(
            f"在同一条命令后加上 --resume，从第 {step} 步继续",
            f"go on from step {step} with the same command and --resume",
        )

    @contextmanager
    def result(self) -> Iterator[Path]:
        """Yield the folder to write the result into; `config.json` or `adapter_config.json` after the weights.

        After an error the partial result is removed; checkpoints stay, and the run can resume from them.
        """
        for name in LOADABLE_NAMES:
            (self.path / name).unlink(missing_ok=True)
        before = _names(self.path)
        try:
            yield self.path
        except BaseException:
            for name in (*LOADABLE_NAMES, *sorted(_names(self.path) - before - set(RUN_NAMES))):
                _remove(self.path / name)
            raise
        for path in self.path.iterdir():
            # Some libraries create files readable by their owner only: give results the mode of the other
            # files.
            if path.is_file():
                shutil.copymode(self.path / run_record.FILE_NAME, path)
        self.has_result = True

    def finish(self, report: SFTReport, facts: Mapping[str, Any]) -> None:
        """Write the manifest, which marks the run as finished, and remove the checkpoints.

        A finished run does not need them, and each is several times as large as the result.
        """
        report_fields = {key: value for key, value in asdict(report).items() if key != "output"}
        facts = {"medchat": __version__, **facts, "report": report_fields}
        manifest.write_manifest(self.path, facts, leave_out=RUN_NAMES)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


@contextmanager
def open_run_folder(
    options: SFTOptions, fingerprint: str, unused_fields: Mapping[str, int] | None = None
) -> Iterator[RunFolder]:
    """Create and lock `options.output` for the length of the block.

    `fingerprint` is of the training data as the model sees it (see `fingerprint_of`), `unused_fields` the
    fields of the data's files that are not used, for the record. If the block fails before a step was logged,
    everything that a new run wrote is removed. Raises UsageError: what `check_output` says, other data, or
    another run at work there.
    """
    path = options.output.absolute()
    check_output(options)
    existed = path.exists()
    folder = RunFolder(path)
    with translate_disk_errors(path, folder.way_on):
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            # Another run may have started or finished between the first check and the lock.
            if check_output(options):
                raise occupied(path, options.resume)
            folder.resumed = bool(entries(path))
            try:
                folder.notes = _begin(path, options, fingerprint, unused_fields, folder.resumed)
                yield folder
            except BaseException:
                # A folder of an earlier run may hold other files too. A log of steps is worth keeping: it
                # shows how far the run came, and `--resume` continues there.
                if not (folder.resumed or folder.has_result or folder.last_step or folder.has_log):
                    _empty(path, remove=not existed)
                raise


@contextmanager
def run_folder(
    options: SFTOptions,
    fingerprint: str,
    processes: ProcessGroup,
    unused_fields: Mapping[str, int] | None = None,
) -> Iterator[RunFolder]:
    """Open the run's folder in the main process, and check that every other one sees it.

    Raises UsageError like `open_run_folder`, and for a folder that is not on a shared file system.
    """
    with ExitStack() as stack:
        opened: list[RunFolder] = []

        def begin() -> tuple[tuple[str, ...], bool]:
            opened.append(stack.enter_context(open_run_folder(options, fingerprint, unused_fields)))
            return opened[0].notes, opened[0].resumed

        notes, resumed = processes.from_main(begin)
        path = options.output.absolute()
        if not all(processes.all_gather((path / run_record.FILE_NAME).is_file())):
            raise UsageError(
                say(
                    f"不是每个进程都能看到 {path}",
                    f"not every process can see {path}",
                ),
                say(
                    "多台机器训练时，--output 须在共享的文件系统上",
                    "with several machines --output must be on a file system they all share",
                ),
            )
        yield opened[0] if opened else RunFolder(path, notes, resumed)


def _begin(
    path: Path, options: SFTOptions, data: str, unused_fields: Mapping[str, int] | None, resumed: bool
) -> tuple[str, ...]:
    checkpoints.clear_remains(path / checkpoints.FOLDER_NAME)
    for name in filter(PARTIAL.fullmatch, _names(path)):
        _remove(path / name)
    if resumed:
        return run_record.compare_data(path, options, data)
    run_record.write_run_record(path, options, data, unused_fields)
    return ()


def _release_after_fork() -> None:
    """Release the lock in a forked worker, which may outlive its killed run for a moment."""
    for lock in _held:
        os.close(lock)
    _held.clear()


#: The locks that this process holds.
_held: set[int] = set()
os.register_at_fork(after_in_child=_release_after_fork)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(lock)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A failed run removes its folder: the file that was just locked may be unlinked.
            if os.fstat(lock).st_ino != (path / LOCK_NAME).stat().st_ino:
                raise BlockingIOError
        except OSError:
            raise UsageError(
                say("另一个训练正在写入这个目录", "another run is writing to this folder"),
                say("请等它结束，或换一个 --output", "wait for it, or choose another --output"),
                where=str(path),
            ) from None
        yield
    finally:
        _held.discard(lock)
        os.close(lock)


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def _empty(path: Path, *, remove: bool) -> None:
    for entry in path.iterdir():
        _remove(entry)
    if remove:
        path.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
