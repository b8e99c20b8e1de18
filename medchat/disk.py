"""The disk: the room that is left, and what is said where it is full or cannot be written to. Standard library only."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medchat.errors import MedchatError
from medchat.language import say

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TROUBLE = (*_FULL, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
#: How libraries written in Rust (safetensors, tokenizers) word an OSError.
_NUMBER = re.compile(r"\(os error (\d+)\)")


def free_space(path: Path) -> tuple[Path, int]:
    """Return the nearest folder of `path` that is there, and the bytes that its disk has left for us.

    Raises OSError.
    """
    place = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return place, shutil.disk_usage(place).free


def system_error(error: BaseException) -> OSError | None:
    """Return `error` if it is an OSError, or the OSError that a library written in Rust made its own error of."""
    if isinstance(error, OSError):
        return error
    found = _NUMBER.search(str(error)) if isinstance(error, Exception) else None
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


@contextmanager
def translate_disk_errors(path: Path, way_on: Callable[[], str]) -> Iterator[None]:
    """Within this block a full or unwritable disk raises MedchatError, with `way_on()` as the remedy."""
    try:
        yield
    except MedchatError:
        raise
    except Exception as error:
        refused = system_error(error)
        number = refused.errno if refused else None
        if number not in _TROUBLE:
            raise
        reason = os.strerror(number)
        where = getattr(error, "filename", None) or path
        if number in _FULL:
            what = say(f"磁盘已满（{reason}）", f"the disk is full ({reason})")
            first = say("请腾出空间", "free some space on it")
        else:
            what = say(f"无法写入（{reason}）", f"writing failed ({reason})")
            first = say("请检查该位置能否写入", "check that this place can be written to")
        remedy = say(f"{first}，然后{way_on()}", f"{first}, then {way_on()}")
        raise MedchatError(what, remedy, where=str(where)) from error


def output_error(output: Path, error: OSError, what: str = "") -> MedchatError:
    """Return the error for a file or folder of `--output` that cannot be written; `what` says so otherwise."""
    reason = error.strerror or str(error)
    said = what or say("无法写入", "cannot be written")
    return MedchatError(
        say(f"{said}：{reason}", f"{said}: {reason}"),
        say(
            "腾出空间、修正权限，或换一个 --output", "make room, fix the permissions, or use another --output"
        ),
        where=str(output),
    )
