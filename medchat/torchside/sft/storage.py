"""Saying that a disk is full, or cannot be written, as the one error family does. Standard library only."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medchat.errors import MedchatError
from medchat.language import say

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TROUBLE = (*_FULL, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
#: How libraries written in Rust tell an OSError in words.
_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def storage_trouble_told(path: Path, way_on: Callable[[], str]) -> Iterator[None]:
    """Within this block a disk that is full or cannot be written raises MedchatError, with what `way_on` gives."""
    try:
        yield
    except MedchatError:
        raise
    except Exception as error:
        number = _number(error)
        if number not in _TROUBLE:
            raise
        reason = os.strerror(number)
        where = getattr(error, "filename", None) or path
        if number in _FULL:
            what = say(f"磁盘已满（{reason}）", f"the disk is full ({reason})")
            first = say("请腾出空间", "make room on it")
        else:
            what = say(f"无法写入（{reason}）", f"writing failed ({reason})")
            first = say("请检查该位置能否写入", "see that this place can be written")
        remedy = say(f"{first}，然后{way_on()}", f"{first}, then {way_on()}")
        raise MedchatError(what, remedy, where=str(where)) from error


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None
