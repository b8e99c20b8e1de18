"""Any vocabulary in `tokenizer.json`, through the `tokenizers` library. No torch here.

What a user types can never become a special id: text is encoded with every control token switched off, and
control ids come from `Control` segments alone. The ids of a prompt that a chat template wrote are those of
transformers' `apply_chat_template`; of a prompt of text alone those of its tokenizer called on the text, so
that `<s>` is in front where, and only where, the vocabulary has it so.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self

from tokenizers import AddedToken, Encoding, Tokenizer

from medchat.api import Control, Segment, SpecialTokens
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.read_once import read_once
from medchat.hf.token_names import (
    CONFIG,
    DECLARING_FILES,
    GENERATION_CONFIG,
    declared_tokens,
    stated_ends,
    states_bos,
)
from medchat.hf.vocabulary import FILE_NAME, PUBLISHED_EXPRESSIONS, lacks, open_tokenizer, two_ids
from medchat.inference.detokenizer import StreamText
from medchat.inference.prompt_ids import special_id, well_formed

_ADDED_FILE = "added_tokens.json"


class HFTokenizer:
    """Text to ids and back. Immutable after construction; padding goes on the left.

    A family whose files are silent on something subclasses it, says it in the class attributes, and returns the
    subclass from `TransformersBackbone.tokenizer_class`:

        class MyTokenizer(HFTokenizer):
            expressions = HFTokenizer.expressions | {r"\\p{L}+|\\p{N}"}
    """

    #: Tokens by role where no file names one.
    usual: ClassVar[Mapping[str, str]] = {}
    #: Control tokens wherever the vocabulary has them as added tokens, even if a file forgot to flag them.
    always_control: ClassVar[tuple[str, ...]] = ()
    #: The regular expressions that may cut text before merging. The library runs them over what users type, so
    #: that any other is refused: it might take for ever.
    expressions: ClassVar[frozenset[str]] = PUBLISHED_EXPRESSIONS

    def __init__(
        self, tokenizer: Tokenizer, declared: Mapping[str, str], where: str = "", bos: bool | None = None
    ) -> None:
        """`declared` are the control tokens that a folder names, by role; `where` is for errors.

        One that the vocabulary lacks gets the next free id, as the original's hosting library does it. `bos`
        says whether `bos_token` is in front of a text, None that the vocabulary itself says it. Raises
        CheckpointError without an end token.
        """
        self._where = where
        self._stated_ends: frozenset[int] = frozenset()
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._controls = self._switch_off(declared)
        self._control_ids = frozenset(self._controls.values())
        #: The highest id, and one: rows of the embedding from there on have no token.
        self.size: int = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        declared = {**self.usual, **declared}
        #: The id that ends an answer, which training adds to each.
        self.eos_token_id: int = self._required(declared, "eos_token")
        #: The id that begins a text, None where the vocabulary has none.
        self.bos_token_id: int | None = self._controls.get(declared.get("bos_token", ""))
        #: The id that fills shorter rows: that of `eos_token` where the vocabulary has none.
        self.pad_token_id: int = self._controls.get(declared.get("pad_token", ""), self.eos_token_id)
        self._front = self._put_in_front(bos)
        self._places = self._add_places()
        self._behind, self._behind_length = self._answer_context()

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read the vocabulary of a checkpoint folder, with the special tokens that its other files name.

        Raises CheckpointError: a file is missing or damaged, there is no end token, or added_tokens.json
        (of older folders) gives a token another id.
        """
        beside = [folder / name for name in (*DECLARING_FILES, _ADDED_FILE, CONFIG, GENERATION_CONFIG)]
        return read_once(cls._read_vocabulary, folder / FILE_NAME, beside=beside)

    @classmethod
    def _read_vocabulary(cls, path: Path) -> Self:
        tokenizer, folder = open_tokenizer(path, cls.expressions), path.parent
        found = cls(tokenizer, declared_tokens(folder), str(path), states_bos(folder))
        found._stated_ends = stated_ends(folder)
        stated = folder / _ADDED_FILE
        for token, number in (read_json_object(stated) if stated.is_file() else {}).items():
            if tokenizer.token_to_id(token) not in (None, number):
                raise two_ids(token, path, stated)
        return found

    # ------------------------------------------------------------ ids by name

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Return the ids of the control tokens by name; no text encodes to any of them."""
        return MappingProxyType(self._controls)

    @property
    def special_tokens(self) -> SpecialTokens:
        """Return the control tokens and the roles that the folder's files, or the family's habit, give them."""
        names = {number: token for token, number in self._controls.items()}
        ids = {"bos_token": self.bos_token_id, "eos_token": self.eos_token_id, "pad_token": self.pad_token_id}
        roles = {role: names[number] for role, number in ids.items() if number is not None}
        return SpecialTokens(tuple(self._controls), roles)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end an answer: the vocabulary's own and those that the folder states."""
        return self._stated_ends | {self.eos_token_id}

    def id_of(self, token: str) -> int:
        """Return the id of a control token. Raises UsageError for any other word."""
        return special_id(token, self._controls, self._where)

    # ------------------------------------------------------------ text to ids

    def encode(self, text: str) -> list[int]:
        """Return the ids of ordinary text as it follows a prompt, whatever it holds; never a control id.

        Lone surrogates become U+FFFD.
        """
        return self._ids(self._behind + well_formed(text))[self._behind_length :]

    def build_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt: one id a `Control`, adjacent `Text` joined before encoding.

        A prompt with a `Control` says itself where special tokens stand; one of text alone gets in front
        what the vocabulary puts there. Raises UsageError for a control token that the vocabulary lacks.
        """
        controls = [segment.token for segment in segments if isinstance(segment, Control)]
        if not controls:
            text = "".join(segment.text for segment in segments if not isinstance(segment, Control))
            return [*self._front, *self._ids(well_formed(text))]
        ids = iter([self.id_of(token) for token in controls])
        # Encoded whole, with marks for the control tokens: some vocabularies treat the beginning of a prompt
        # otherwise than a text behind a token.
        marked = "".join(
            self._place_of(segment.token) if isinstance(segment, Control) else segment.text
            for segment in segments
        )
        places = frozenset(self._places.values())
        return [next(ids) if number in places else number for number in self._ids(well_formed(marked))]

    def _ids(self, text: str) -> list[int]:
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

    # ------------------------------------------------------------ ids to text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`. Control ids and ids of rows without a token give nothing."""
        known = [token for token in ids if token < self.size]
        return str(self._tokenizer.decode(known, skip_special_tokens=True))

    def stream(self) -> StreamText:
        """Return a decoder for an answer that comes id by id."""
        return StreamText(self.decode)

    # ------------------------------------------------------------ construction

    def _switch_off(self, declared: Mapping[str, str]) -> dict[str, int]:
        """Flag every control token as special, so that no text becomes one; return their ids by name."""
        added = {token.content: token for token in self._tokenizer.get_added_tokens_decoder().values()}
        named = [name for name, token in added.items() if token.special or name in self.always_control]
        controls = list(dict.fromkeys([*named, *declared.values()]))
        self._tokenizer.add_special_tokens(
            [added.get(name, AddedToken(name, normalized=False)) for name in controls]
        )
        self._tokenizer.encode_special_tokens = True
        ids = self._tokenizer.get_added_tokens_decoder().items()
        #: Whether a control token takes the blanks before and behind it.
        self._strips = {token.content: (token.lstrip, token.rstrip) for _, token in ids}
        return {token.content: number for number, token in ids if token.content in controls}

    def _required(self, declared: Mapping[str, str], role: str) -> int:
        token = declared.get(role, "")
        if token not in self._controls:
            raise lacks(token or role, self._where)
        return self._controls[token]

    def _put_in_front(self, bos: bool | None) -> tuple[int, ...]:
        if bos is not None and self.bos_token_id is not None:
            return (self.bos_token_id,) if bos else ()
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        at = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
        return tuple(whole[:at])

    def _add_places(self) -> dict[tuple[bool, bool], int]:
        """Add the marks that stand for control tokens while a prompt is encoded: words that nobody can guess."""
        secret = secrets.token_hex(16)
        self._marks = {
            (left, right): f"\ue000{secret}{left:d}{right:d}\ue001"
            for left in (False, True)
            for right in (False, True)
        }
        self._tokenizer.add_tokens(
            [
                AddedToken(mark, normalized=False, special=False, lstrip=left, rstrip=right)
                for (left, right), mark in self._marks.items()
            ]
        )
        return {kind: self._tokenizer.encode(mark).ids[-1] for kind, mark in self._marks.items()}

    def _place_of(self, token: str) -> str:
        return self._marks[self._strips[token]]

    def _answer_context(self) -> tuple[str, int]:
        """Return what an answer is encoded behind, and how many ids that is.

        A vocabulary that begins every text with a word border is given a line break, which has none behind it.
        """
        mark = self._marks[False, False]
        line = f"{mark}\n"
        mark_length, line_length = len(self._ids(mark)), len(self._ids(line))
        bordered = self._ids(f"{mark}a")[mark_length:] != self._ids(f"{line}a")[line_length:]
        return (line, line_length) if bordered else (mark, mark_length)
