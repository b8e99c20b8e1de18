"""What an output folder contains before a run: a finished run, one to resume, or files that must be kept.

Standard library only.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from medchat.api import SFTNote, SFTOptions, SFTReport, SFTSample
from medchat.checkpoints import manifest
from medchat.errors import UsageError
from medchat.language import say
from medchat.regular_files import read_json
from medchat.training import checkpoint as checkpoints
from medchat.training import run_record

LOCK_NAME = ".lock"
#: Names of partly written files that a killed process leaves: ours, and those of safetensors.
PARTIAL = re.compile(r"\..+\.partial|\.tmp[A-Za-z0-9]{6}")

#: Files of a finished run that people may edit or delete: no weights depend on them.
_REPORTS = re.compile(r".+\.(md|html|svg|png)|report\.json")
#: Up to this size a finished run's files are verified by content; larger ones by size.
_READ_UP_TO = 1 << 20


def check_output(options: SFTOptions) -> SFTReport | None:
    """Check `options.output` before anything is loaded; writes nothing.

    Returns the report of a finished run that `options.resume` asks to continue, else None. Raises UsageError
    if there is something that may not be overwritten, or a run with other settings, and CheckpointError if a
    finished run's files do not match its manifest.
    """
    output = options.output
    if not output.exists() or (output.is_dir() and not entries(output)):
        return None
    if not options.resume or not (output / run_record.FILE_NAME).is_file():
        raise occupied(output, options.resume)
    run_record.compare_options(output, options)
    return _finished(output)


def close_finished(output: Path) -> SFTNote:
    """Return the notes on a finished run, and remove the checkpoints that a killed run left there."""
    shutil.rmtree(output / checkpoints.FOLDER_NAME, ignore_errors=True)
    return SFTNote(
        say(f"{output} 里的训练已经完成，不必继续", f"the run in {output} is finished; nothing to do")
    )


def _finished(output: Path) -> SFTReport | None:
    path = output / manifest.FILE_NAME
    try:
        fields = read_json(path, manifest.MOST_BYTES)["report"]
        samples = tuple(SFTSample(**sample) for sample in fields.pop("samples", ()))
        report = SFTReport(output=output, samples=samples, **fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            say("结果清单无法读取", "the result's manifest cannot be read"),
            say("请换一个 --output 重新训练", "train again with another --output"),
            where=str(path),
        ) from error
    manifest.verify_manifest(output, read_up_to=_READ_UP_TO, but_for=_REPORTS)
    return report


def occupied(output: Path, resume: bool) -> UsageError:
    """Return the error for an output folder whose content may not be overwritten."""
    if (output / run_record.FILE_NAME).is_file() and not resume:
        return UsageError(
            say(f"{output} 里已经有一次训练，不会覆盖它", f"{output} already holds a run; it is kept"),
            say(
                "加上 --resume 继续训练，或换一个 --output", "go on with --resume, or choose another --output"
            ),
            where=str(output),
        )
    return UsageError(
        say(f"输出位置 {output} 已经有内容，不会覆盖它", f"{output} already holds something; it is kept"),
        say("请换一个 --output，或先把它移走", "choose another --output, or move it away first"),
        where=str(output),
    )


def entries(path: Path) -> set[str]:
    """Return the entries of the folder, except those that a run killed right after its start leaves."""
    return {
        entry.name
        for entry in path.iterdir()
        if entry.name != LOCK_NAME and not PARTIAL.fullmatch(entry.name)
    }
