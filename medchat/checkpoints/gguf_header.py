"""What a GGUF file (llama.cpp's weights) states of itself: numbers and texts in front of the tensors. No library."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from medchat.errors import CheckpointError
from medchat.language import say
from medchat.regular_files import UNLIMITED, open_regular

#: Bytes that are read of a file: the header of the largest vocabularies takes some twenty million.
HEADER_BYTES = 2**26
_VERSIONS = (2, 3)
#: The kinds of a value in the format of `struct`; the two others are no numbers.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
#: What the kind of a token is where no text may become it.
_CONTROL = 3
_MANY = 2**24


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file states. Everything is as the file has it; what it leaves out is empty or 0."""

    #: What llama.cpp calls the architecture (`llama`, `qwen2`).
    architecture: str
    #: Tokens that the model was made for.
    context_length: int
    #: The vocabulary, by id.
    tokens: tuple[str, ...]
    #: The ids of the special tokens by name: no text may become one of them.
    special_ids: Mapping[str, int]
    #: `bos_token` and `eos_token`, as far as they are stated.
    roles: Mapping[str, str]
    #: The ids that end an answer, that of a turn before that of a text; at least one.
    end_ids: tuple[int, ...]
    #: The chat template in Jinja, "" where there is none.
    chat_template: str = ""
    #: All that is stated, by its key.
    stated: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read what a GGUF file of a language model states, a bounded number of bytes; nothing of its tensors.

    Raises CheckpointError: missing, no GGUF file, damaged, or without a vocabulary and a context.
    """
    try:
        status = path.stat()
        return _header(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, LookupError, TypeError, struct.error, OverflowError, MemoryError) as error:
        reason = say("文件头已损坏，或不是语言模型", "its header is damaged, or it is no language model")
        raise _unusable(path, reason) from error


@lru_cache(maxsize=2)  # asked for several times while one model is chosen and loaded
def _header(path: Path, changed: int, size: int) -> GGUFHeader:
    with open_regular(path, most=UNLIMITED) as stream:
        stated = _Reader(stream).all()
    architecture, tokens = stated["general.architecture"], tuple(stated["tokenizer.ggml.tokens"])
    context = stated[f"{architecture}.context_length"]
    if not 0 < context <= _MANY:
        raise ValueError(context)
    kinds = stated.get("tokenizer.ggml.token_type", ())
    ids = {role: stated.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eot", "eom", "eos")}
    stated_ends = (ids[role] for role in ("eot", "eom", "eos"))
    ends = tuple(dict.fromkeys(number for number in stated_ends if number is not None))
    if not ends or not 0 <= min(ends) <= max(ends) < len(tokens):
        raise ValueError(ends)
    template = stated.get("tokenizer.chat_template", "")
    return GGUFHeader(
        architecture=architecture,
        context_length=context,
        tokens=tokens,
        special_ids={tokens[at]: at for at, kind in enumerate(kinds) if kind == _CONTROL},
        roles={f"{role}_token": tokens[at] for role in ("bos", "eos") if (at := ids[role]) is not None},
        end_ids=ends,
        chat_template=template if isinstance(template, str) else "",
        stated=stated,
    )


class _Reader:
    """Reads the values of a header in order. Raises ValueError, KeyError, struct.error for one that is damaged."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream, self._left = stream, HEADER_BYTES

    def all(self) -> dict[str, Any]:
        magic, version, _tensors, count = self._take("4sIQQ")
        if magic != b"GGUF" or version not in _VERSIONS:
            raise ValueError(magic)
        return {self._text(): self._value(self._take("I")[0]) for _ in range(count)}

    def _take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))

    def _bytes(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError(size)
        found = self._stream.read(size)
        if len(found) < size:
            raise ValueError(size)
        return found

    def _text(self) -> str:
        size = int.from_bytes(self._bytes(8), "little")
        return self._bytes(size).decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._take(_NUMBERS[kind])[0]
        of, count = self._take("IQ")
        if of != _STRING:
            return self._take(f"{count}{_NUMBERS[of]}")
        return [self._text() for _ in range(count)]


def _unusable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        say(f"不能用作 GGUF 模型：{reason}", f"cannot be used as a GGUF model: {reason}"),
        say("请重新下载这个文件，或指定另一个", "download the file again, or name another"),
        where=str(path),
    )
