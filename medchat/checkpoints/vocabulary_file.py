"""The file of a vocabulary beside the weights, of whatever family. No torch here."""

from __future__ import annotations

from pathlib import Path

from medchat.checkpoints.read_once import VOCABULARY_BYTES, file_bytes
from medchat.checkpoints.weight_files import LFS_POINTER, lfs_pointer
from medchat.errors import CheckpointError
from medchat.language import say


def vocabulary_bytes(path: Path) -> bytes:
    """Return the content of a vocabulary's file. Raises CheckpointError: missing, unreadable, a git-lfs pointer."""
    try:
        content = file_bytes(path, VOCABULARY_BYTES)
    except FileNotFoundError:
        raise CheckpointError(
            say(f"模型目录里没有词表文件 {path.name}", f"the folder lacks the vocabulary file {path.name}"),
            _remedy(path),
            where=str(path),
        ) from None
    except OSError as error:
        raise CheckpointError(
            say(
                f"无法读取词表文件（{error.strerror}）",
                f"the vocabulary file cannot be read ({error.strerror})",
            ),
            _remedy(path),
            where=str(path),
        ) from None
    if content.startswith(LFS_POINTER):
        raise lfs_pointer(path)
    return content


def _remedy(path: Path) -> str:
    return say(
        f"请把与权重配套的 {path.name} 放进模型目录",
        f"put the {path.name} published with these weights into the folder",
    )
