"""Bloom's byte-level tokenizer, from `tokenizer.json` through the `tokenizers` library. No torch here.

What a user types can never become a special id: text is encoded with every control token switched off,
and control ids come from `Control` segments alone. See docs/specs/models.md, "Bloom".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from medchat.api import Segment, SpecialTokens
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.read_once import read_once
from medchat.checkpoints.vocabulary_file import vocabulary_bytes
from medchat.errors import CheckpointError, UsageError
from medchat.inference.detokenizer import StreamText
from medchat.inference.prompt_ids import segment_ids, well_formed
from medchat.language import say

FILE_NAME = "tokenizer.json"
UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
BEGIN_OF_UTTERANCE, END_OF_UTTERANCE = "<|beginofutterance|>", "<|endofutterance|>"
#: Control tokens wherever the vocabulary has them as added tokens, even if a file forgot to flag them.
_ALWAYS_CONTROL = (UNK, BOS, EOS, PAD, BEGIN_OF_UTTERANCE, END_OF_UTTERANCE)
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_DECLARING_FILES = ("special_tokens_map.json", "tokenizer_config.json")
#: How the published tokenizer cuts text before merging (docs/specs/models.md, "Bloom"). Oniguruma reads the
#: brackets inside as one nested class; Python's `re` would not.
WORDS = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_ADDED_FILE = "added_tokens.json"


class BloomTokenizer:
    """Text to ids and back. Nothing is put in front of a prompt or behind it; padding goes on the left.

    Immutable after construction.
    """

    def __init__(self, tokenizer: Tokenizer, declared: Mapping[str, str], where: str = "") -> None:
        """`declared` are the control tokens that a folder names, by role; `where` is for errors.

        One that the vocabulary lacks gets the next free id, as the original's hosting library does it.
        """
        self._where = where
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder().values()
        named = [token.content for token in added if token.special or token.content in _ALWAYS_CONTROL]
        controls = list(dict.fromkeys([*named, *declared.values()]))
        # Flagged as special, every one of them is left alone by the switch below.
        tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in controls])
        tokenizer.encode_special_tokens = True
        ids = tokenizer.get_added_tokens_decoder().items()
        self._controls = {token.content: number for number, token in ids if token.content in controls}
        self._control_ids = frozenset(self._controls.values())
        self.size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.eos_token_id = self._role(declared, "eos_token", EOS)
        self.bos_token_id = self._role(declared, "bos_token", BOS)
        self.pad_token_id = self._controls.get(declared.get("pad_token", PAD), self.eos_token_id)

    @classmethod
    def from_folder(cls, folder: Path) -> BloomTokenizer:
        """Read the vocabulary of a checkpoint folder, with the special tokens that its other files name.

        Raises CheckpointError: a file is missing or damaged, there is no end token, or added_tokens.json
        (of older folders) gives a token another id.
        """
        beside = [folder / name for name in (*_DECLARING_FILES, _ADDED_FILE)]
        return read_once(_read_vocabulary, folder / FILE_NAME, beside=beside)

    # ------------------------------------------------------------ ids by name

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Return the ids of the control tokens by name; no text encodes to any of them."""
        return MappingProxyType(self._controls)

    @property
    def special_tokens(self) -> SpecialTokens:
        """Return the control tokens and the roles that the folder's files, or Bloom's habit, give them."""
        names = {number: token for token, number in self._controls.items()}
        ids = {"bos_token": self.bos_token_id, "eos_token": self.eos_token_id, "pad_token": self.pad_token_id}
        return SpecialTokens(tuple(self._controls), {role: names[number] for role, number in ids.items()})

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end an answer: `</s>`, and where the vocabulary has it `<|endofutterance|>`."""
        chat_end = self._controls.get(END_OF_UTTERANCE, self.eos_token_id)
        return frozenset({self.eos_token_id, chat_end})

    def id_of(self, token: str) -> int:
        """Return the id of a control token. Raises UsageError for any other word."""
        try:
            return self._controls[token]
        except KeyError:
            known = " ".join(self._controls)
            raise UsageError(
                say(f"这个词表没有特殊标记“{token}”", f"this vocabulary has no special token {token!r}"),
                say(
                    f"换用别的 --template；可用的特殊标记：{known}",
                    f"use another --template; the special tokens are {known}",
                ),
                where=self._where,
            ) from None

    def _role(self, declared: Mapping[str, str], role: str, usual: str) -> int:
        token = declared.get(role, usual)
        if token not in self._controls:
            raise _lacks(token, self._where)
        return self._controls[token]

    # ------------------------------------------------------------ text to ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text, whatever it holds; never a control id.

        Lone surrogates become U+FFFD.
        """
        text = well_formed(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if self._control_ids.isdisjoint(encoding.ids):
            return list(encoding.ids)
        return list(self._spelled_out(text, encoding))

    def _spelled_out(self, text: str, encoding: Encoding) -> Iterable[int]:
        """Yield the ids, with character by character what merged into the very piece of a control token."""
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token not in self._control_ids:
                yield token
                continue
            for character in text[start:end]:
                yield from self._tokenizer.encode(character, add_special_tokens=False).ids

    def build_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt: one id a `Control`, adjacent `Text` joined before encoding.

        Raises UsageError for a control token that the vocabulary lacks.
        """
        return segment_ids(segments, self.encode, self.id_of)

    # ------------------------------------------------------------ ids to text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`. Control ids and ids of rows without a token give nothing."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def stream(self) -> StreamText:
        """Return a decoder for an answer that comes id by id."""
        return StreamText(self.decode)


def declared_tokens(folder: Path) -> dict[str, str]:
    """Return the control tokens that the small files of a folder name, by role (`eos_token`, …).

    Additional ones are under `additional_special_tokens.N`. special_tokens_map.json goes before
    tokenizer_config.json. Raises CheckpointError if one of the two is there and damaged.
    """
    found: dict[str, str] = {}
    for name in reversed(_DECLARING_FILES):
        path = folder / name
        if path.is_file():
            found |= _declared(read_json_object(path))
    return found


def _declared(stated: Mapping[str, Any]) -> dict[str, str]:
    found = {role: token for role in _NAMED if (token := _content(stated.get(role)))}
    additional = stated.get("additional_special_tokens")
    for number, entry in enumerate(additional if isinstance(additional, list) else ()):
        if token := _content(entry):
            found[f"additional_special_tokens.{number}"] = token
    return found


def _content(entry: Any) -> str:
    """Return the token of an entry, which is its text or an object that holds it."""
    token = entry.get("content") if isinstance(entry, dict) else entry
    return token if isinstance(token, str) else ""


def _read_vocabulary(path: Path) -> BloomTokenizer:
    tokenizer = BloomTokenizer(_read(path), declared_tokens(path.parent), str(path))
    stated = path.parent / _ADDED_FILE
    for token, number in (read_json_object(stated) if stated.is_file() else {}).items():
        if tokenizer._tokenizer.token_to_id(token) not in (None, number):
            raise _two_ids(token, path, stated)
    return tokenizer


def _read(path: Path) -> Tokenizer:
    content = vocabulary_bytes(path)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises Exception itself, whatever is wrong with the file
        raise _damaged(path, error) from None
    _refuse_expressions(tokenizer, path)
    return tokenizer


def _refuse_expressions(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse regular expressions but the published one: the library would run them over what users type."""
    for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder):
        waiting = [json.loads(part.__getstate__())] if part else []
        while waiting:
            value = waiting.pop()
            waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            if isinstance(value, dict) and value.get("Regex", WORDS) != WORDS:
                raise CheckpointError(
                    say(
                        f"{FILE_NAME} 中有陌生的正则表达式，已拒绝",
                        f"{FILE_NAME} holds a regular expression that is not Bloom's: refused",
                    ),
                    say(
                        f"请从权重的来源重新下载 {FILE_NAME}",
                        f"download {FILE_NAME} again from where the weights came from",
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


def _lacks(token: str, where: str) -> CheckpointError:
    return CheckpointError(
        say(f"词表里没有特殊标记 {token}", f"the vocabulary lacks the special token {token}"),
        say(
            f"请重新下载与权重配套的 {FILE_NAME}",
            f"download the {FILE_NAME} published with these weights again",
        ),
        where=where,
    )


def _two_ids(token: str, path: Path, other: Path) -> CheckpointError:
    return CheckpointError(
        say(
            f"{path.name} 与 {other.name} 给 {token} 的编号不同",
            f"{path.name} and {other.name} give {token} different ids",
        ),
        say("请一起重新下载这两个文件", "download both files together again"),
        where=str(other),
    )
