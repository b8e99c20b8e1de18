"""Reading a `tokenizer.json` of unknown origin. No torch here."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection
from pathlib import Path

from tokenizers import Tokenizer

from medchat.checkpoints.vocabulary_file import vocabulary_bytes
from medchat.errors import CheckpointError
from medchat.language import say

FILE_NAME = "tokenizer.json"

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#: How the published vocabularies cut text before merging: each runs in time that grows with the text's length.
PUBLISHED_EXPRESSIONS = frozenset(
    {
        # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Qwen 2, 2.5 and 3
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Qwen 3.5
        _CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Llama 3, and GPT-4's
        _CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Digits and letters one kind at a time, and blanks, as several families have them beside the above.
        r"\p{N}{1,3}",
        r"\p{N}",
        r"\d",
        r" {2,}",
        r"\s+",
    }
)


def open_tokenizer(path: Path, expressions: Collection[str]) -> Tokenizer:
    """Return the vocabulary in `path`, which may cut text by the regular expressions given and no other.

    Raises CheckpointError: missing, damaged, or another expression.
    """
    content = vocabulary_bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises Exception itself, whatever is wrong with the file
        raise _damaged(path, error) from None
    _refuse_expressions(tokenizer, path, expressions)
    return tokenizer


def _refuse_expressions(tokenizer: Tokenizer, path: Path, expressions: Collection[str]) -> None:
    """Refuse regular expressions but the known ones: the library would run them over what users type."""
    for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder):
        waiting = [json.loads(part.__getstate__())] if part else []
        while waiting:
            value = waiting.pop()
            waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            if isinstance(value, dict) and "Regex" in value and value["Regex"] not in expressions:
                expression = str(value["Regex"])
                raise _unknown(path, expression) from ValueError(expression)


def _unknown(path: Path, expression: str) -> CheckpointError:
    shown = repr(expression)[:120]
    return CheckpointError(
        say(
            f"{FILE_NAME} 中有陌生的正则表达式，已拒绝：{shown}",
            f"{FILE_NAME} holds a regular expression that is not known: refused: {shown}",
        ),
        say(
            f"请从权重的来源重新下载 {FILE_NAME}；插件作者可把它列进 HFTokenizer.expressions"
            "（全文是文件中的 Regex，--debug 也会显示）",
            f"download {FILE_NAME} again from where the weights came from; a plugin's author may list it in "
            "HFTokenizer.expressions (it stands whole as Regex in the file, and --debug shows it)",
        ),
        where=str(path),
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return CheckpointError(
        say(f"{FILE_NAME} 无法读取（{reason}）", f"{FILE_NAME} cannot be read ({reason})"),
        say("文件已损坏或下载不完整，请重新下载", "it is damaged or incomplete: download it again"),
        where=str(path),
    )


def lacks(token: str, where: str) -> CheckpointError:
    """Return the error for a vocabulary without a special token that it must have."""
    return CheckpointError(
        say(f"词表里没有特殊标记 {token}", f"the vocabulary lacks the special token {token}"),
        say(
            f"请重新下载与权重配套的 {FILE_NAME}",
            f"download the {FILE_NAME} published with these weights again",
        ),
        where=where,
    )


def two_ids(token: str, path: Path, other: Path) -> CheckpointError:
    """Return the error for two files that disagree on a token's id."""
    return CheckpointError(
        say(
            f"{path.name} 与 {other.name} 给 {token} 的编号不同",
            f"{path.name} and {other.name} give {token} different ids",
        ),
        say("请一起重新下载这两个文件", "download both files together again"),
        where=str(other),
    )


def require_rows(size: int, rows: int, folder: Path) -> None:
    """Raise CheckpointError if the vocabulary of a folder has more ids than its weights have rows."""
    if size > rows:
        raise CheckpointError(
            say(
                f"词表与权重不匹配：{FILE_NAME} 有 {size} 个编号，权重只有 {rows} 行",
                f"the vocabulary does not match: {FILE_NAME} has {size} ids, the weights {rows} rows",
            ),
            say(
                f"请换上与权重一起发布的 {FILE_NAME}",
                f"put the {FILE_NAME} published with these weights there",
            ),
            where=str(folder / FILE_NAME),
        )
