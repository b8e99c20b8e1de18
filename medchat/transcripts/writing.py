"""Writing sessions to a file of the user's choice: nothing that is there is replaced without being told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medchat.errors import MedchatError, UsageError
from medchat.language import say
from medchat.store import Transcript
from medchat.transcripts.export import export, export_suffix, redacted
from medchat.whole_file import write_whole_file


def check_place(path: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError for an unknown suffix, and for a file that is there unless `overwrite`."""
    export_suffix(path)
    if path.exists() and not overwrite:
        raise UsageError(
            say("输出文件已存在", "the output file exists"),
            say("换一个文件名，或加上 --overwrite", "choose another name, or add --overwrite"),
            where=str(path),
        )


def export_text(transcripts: Sequence[Transcript], suffix: str, *, redact: bool = False) -> str:
    """Return the text of the file for a suffix of `FORMATS`, masked if `redact`."""
    return export([redacted(one) for one in transcripts] if redact else transcripts, suffix)


def write_export(
    path: Path, transcripts: Sequence[Transcript], *, redact: bool = False, overwrite: bool = False
) -> None:
    """Write sessions to a private file, whole or not at all. Raises what `check_place` raises, MedchatError."""
    check_place(path, overwrite=overwrite)
    text = export_text(transcripts, export_suffix(path), redact=redact)
    try:
        write_whole_file(path, text, private=True)
    except OSError as error:
        raise MedchatError(
            say(f"无法写入：{error.strerror or error}", f"cannot be written: {error.strerror or error}"),
            say("请检查路径和磁盘空间", "check the path and the space on the disk"),
            where=str(path),
        ) from error


def left_out(transcripts: Sequence[Transcript], suffix: str) -> str:
    """Say that a form holds the conversation as it is alone, "" if nothing was left out."""
    if suffix == ".json" or not any(transcript.others for transcript in transcripts):
        return ""
    return say(
        "（只有当前对话；.json 含全部分支）", " (the conversation as it stands; .json holds every branch)"
    )
