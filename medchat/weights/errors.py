"""What the network, the hub and the disk raise, as errors that say what to type next."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.language import say
from medchat.weights.source import Source

_NOT_FOUND = 404
#: Entries of one repository's folder: the largest models have some hundred.
MAX_ENTRIES = 10_000
Entry = TypeVar("Entry")


@contextmanager
def translate_errors(source: Source, folder: Path | None = None) -> Iterator[None]:
    """Turn what escapes into a MedchatError. Anything that is neither the network's nor the disk's passes.

    Raises MedchatError.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise _http_error(error.response.status_code, str(error.response.url), source) from error
    except httpx2.HTTPError as error:
        raise _unreachable(error, source) from error
    except OSError as error:
        raise _disk_error(error, folder) from error


def within_entries(entries: Iterable[Entry], where: str) -> Iterator[Entry]:
    """Yield what is in a repository's folder. Raises MedchatError if that does not end."""
    left = iter(entries)
    yield from islice(left, MAX_ENTRIES)
    if next(left, None) is not None:
        raise MedchatError(
            say(f"仓库的文件列表超过 {MAX_ENTRIES} 项", f"the repository lists over {MAX_ENTRIES} files"),
            say("换一个来源：--repo 用户/名称", "choose another source: --repo OWNER/NAME"),
            where=where,
        )


def no_listing(where: str, variable: str) -> MedchatError:
    """Return the error for an answer that is no list of files. `variable` is where the source's address stands."""
    return MedchatError(
        say("下载来源返回的不是文件列表", "the source returned something other than a list of files"),
        say(f"检查 {variable}，或换一个来源", f"check {variable}, or choose another source"),
        where=where,
    )


def no_repository_name(repository: str) -> UsageError:
    """Return the error for what no repository can be called."""
    return UsageError(
        say(f"“{repository}”不是仓库名", f"{repository!r} is not the name of a repository"),
        say("写成 --repo 用户/名称", "write --repo OWNER/NAME"),
    )


def _http_error(status: int, url: str, source: Source) -> MedchatError:
    if status == _NOT_FOUND:
        return CheckpointError(
            say("下载来源没有这个文件", "the source has no such file"),
            say(
                "换一个来源：--repo 用户/名称，或 HF_ENDPOINT",
                "choose another: --repo OWNER/NAME, or HF_ENDPOINT",
            ),
            where=url,
        )
    return MedchatError(
        say(f"{source.address} 返回 {status}", f"{source.address} returned {status}"),
        _resume_hint(),
        where=url,
    )


def _unreachable(error: Exception, source: Source) -> MedchatError:
    reason = str(error) or type(error).__name__
    return MedchatError(
        say(f"无法连接：{reason}", f"no connection: {reason}"), _resume_hint(), where=source.address
    )


def _resume_hint() -> str:
    return say(
        "已下载的部分都保留着，稍后再运行同一条命令；网络不通可换镜像：HF_ENDPOINT=https://镜像",
        "what was downloaded is kept: run the same command later, or through a mirror: HF_ENDPOINT=https://…",
    )


def _disk_error(error: OSError, folder: Path | None) -> MedchatError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MedchatError(
        say(f"无法写入：{reason}", f"cannot write: {reason}"),
        say("腾出空间后再运行同一条命令", "make room and run the same command again")
        if full
        else say(
            "检查权限，或用 --dir 换一个目录", "check the permissions, or choose another folder with --dir"
        ),
        where=str(error.filename or folder or ""),
    )
