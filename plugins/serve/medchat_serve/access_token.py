"""The secret that requests must bring: from the environment or a file of one's own, never from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medchat.plugin_kit import UsageError, read_regular, say

VARIABLE = "MEDCHAT_SERVE_TOKEN"
#: The most that a file with a token holds.
TOKEN_BYTES = 4096
_SHORTEST = 16


def find_token(environment: Mapping[str, str], file: Path | None) -> str:
    """Return the token, "" if there is none.

    Raises UsageError for one that is too short, and for a file that others can read.
    """
    if file is not None:
        return _checked(_read(file), str(file))
    return _checked(environment[VARIABLE], VARIABLE) if environment.get(VARIABLE) else ""


def _read(file: Path) -> str:
    try:
        content, mode = read_regular(file, TOKEN_BYTES), file.stat().st_mode
    except OSError as error:
        raise UsageError(
            say(f"无法读取令牌文件：{error.strerror}", f"cannot read the token's file: {error.strerror}"),
            say("检查 --token-file", "check --token-file"),
            where=str(file),
        ) from None
    if mode & 0o077:
        raise UsageError(
            say("令牌文件能被其他用户读取", "others can read the token's file"),
            f"chmod 600 {file}",
            where=str(file),
        )
    return content.decode("utf-8", "replace").strip()


def _checked(token: str, where: str) -> str:
    plain = token.isascii() and token.isprintable() and " " not in token
    if not plain or not _SHORTEST <= len(token) <= TOKEN_BYTES:
        raise UsageError(
            say(
                f"令牌应为 {_SHORTEST} 到 {TOKEN_BYTES} 个 ASCII 字符，不含空格",
                f"a token is {_SHORTEST} to {TOKEN_BYTES} ASCII characters without spaces",
            ),
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            where=where,
        )
    return token
