"""ChatGLM-6B's tokenizer with plain SentencePiece, for both id generations and both file layouts.

What a user types can never become a special id: text goes through the core encoder, where control pieces
never match, and specials come from `Control` segments alone. (The original's hosting class turned a typed
`<sop>`, `</s>` or [MASK] into the real token; this one does not copy that.) See docs/specs/models.md,
"ChatGLM-6B vocabulary". Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medchat.checkpoints.config_json import LARGEST
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.layout import read_config
from medchat.checkpoints.read_once import read_once
from medchat.checkpoints.vocabulary_file import vocabulary_bytes
from medchat.inference.detokenizer import StreamText, unfinished_characters
from medchat.inference.prompt_ids import segment_ids, well_formed
from medchat.plugin_kit import CheckpointError, Control, Segment, SpecialTokens, UsageError, say
from medchat_chatglm.config_file import V0_IMAGE_TOKENS, V0_ROWS, generation_of
from medchat_chatglm.vocabulary import (
    APPENDED_COUNT,
    CONTROL_PIECES,
    FILE_NAME,
    FIRST_PIECES,
    LONGEST_BLANK,
    NEWLINE_PIECE,
    TAB_PIECE,
    blank_piece,
    open_vocabulary,
)

#: Bytes of the two published vocabularies (docs/specs/models.md, "ChatGLM-6B revisions and files").
PUBLISHED_SIZES = {"v0": 2699926, "v11": 2706249}

_PLACEHOLDERS = {
    NEWLINE_PIECE: "\n",
    TAB_PIECE: "\t",
    **{blank_piece(length): " " * length for length in range(2, LONGEST_BLANK + 1)},
}
_PLACEHOLDER = re.compile("|".join(map(re.escape, _PLACEHOLDERS)))
_PLACEHOLDER_STARTS = {piece[:length] for piece in _PLACEHOLDERS for length in range(1, len(piece))}
_LONGEST_START = max(map(len, _PLACEHOLDER_STARTS))
_BLANKS = re.compile(f" {{2,{LONGEST_BLANK}}}")


class ChatGLMTokenizer:
    """Text to ids and back. Immutable after construction; survives pickle and deepcopy.

    `generation` is "v0" (icetk era: `</s>` ends an answer in training, [MASK] may replace [gMASK]) or "v11".
    Ids are SentencePiece's plus `num_image_tokens`; ids below that are image tokens and decode to nothing, as
    do ids past the last piece (the embedding has more rows than there are pieces).
    """

    def __init__(
        self,
        model: bytes,
        *,
        num_image_tokens: int | None = None,
        eos_token: str | None = None,
        where: str = "",
    ) -> None:
        """Read a vocabulary from bytes; the arguments are those of `from_file`."""
        self._processor, lacked_pieces = open_vocabulary(model, where)
        offset = num_image_tokens
        if offset is None:
            offset = V0_IMAGE_TOKENS if lacked_pieces else 0
        self.num_image_tokens = offset
        self.generation = "v0" if lacked_pieces or offset else "v11"
        self.text_pieces: int = self._processor.get_piece_size()
        controls = (*FIRST_PIECES[:4], *CONTROL_PIECES)
        self._specials = {piece: self._processor.piece_to_id(piece) + offset for piece in controls}
        self.eos_token = eos_token or ("</s>" if self.generation == "v0" else "<eop>")
        self.eos_token_id = self.id_of(self.eos_token)
        self.pad_token_id = self.id_of("<pad>")

    @classmethod
    def from_file(
        cls, path: Path, *, num_image_tokens: int | None = None, eos_token: str | None = None
    ) -> ChatGLMTokenizer:
        """Read `ice_text.model`, with or without the appended pieces.

        `num_image_tokens` None means 20000 for the icetk-era file and 0 for the one with all pieces;
        a checkpoint with other ids (a re-numbered miniature) states it in tokenizer_config.json.
        `eos_token` None means `</s>` in v0 and `<eop>` in v1.1.
        Raises CheckpointError if the file is missing, damaged or of another model.
        """
        return read_once(_read_vocabulary, path, num_image_tokens, eos_token)

    @classmethod
    def from_folder(cls, folder: Path) -> ChatGLMTokenizer:
        """Read the vocabulary of a checkpoint folder and check that it matches the weights' ids.

        `num_image_tokens` and `eos_token` come from tokenizer_config.json if stated there, else from the
        vocabulary's layout. It matches if config.json has a row for every id and its `bos_token_id`,
        `mask_token_id` and `gmask_token_id` (if given) are this tokenizer's: true for tiny models with other
        ids, and false for 150528-row weights with the 130344-piece vocabulary and the reverse. Raises
        CheckpointError naming both files otherwise, or for a missing or damaged file.
        """
        config = read_config(folder)
        stated_path = folder / "tokenizer_config.json"
        stated = read_json_object(stated_path) if stated_path.exists() else {}
        offset, eos = stated.get("num_image_tokens"), stated.get("eos_token")
        tokenizer = cls.from_file(
            folder / FILE_NAME,
            num_image_tokens=offset if type(offset) is int and 0 <= offset <= LARGEST["vocab_size"] else None,
            eos_token=eos if eos in ("</s>", "<eop>") else None,
        )
        tokenizer.check_belongs(config, folder)
        return tokenizer

    def check_belongs(self, config: Mapping[str, Any], folder: Path) -> None:
        """Raise CheckpointError unless the ids of `config` are this tokenizer's (see `from_folder`)."""
        rows = config.get("vocab_size", V0_ROWS)
        if not isinstance(rows, int) or rows < self.vocab_size:
            raise _mismatch(folder, config, f"vocab_size {rows} < {self.vocab_size}")
        for key, token in (
            ("bos_token_id", "<sop>"),
            ("mask_token_id", "[MASK]"),
            ("gmask_token_id", "[gMASK]"),
        ):
            stated, own = config.get(key), self.id_of(token)
            if stated not in (None, own):
                raise _mismatch(folder, config, f"{key} {stated}, {token} {own}")

    # ------------------------------------------------------------ ids by name

    @property
    def vocab_size(self) -> int:
        """Return the number of ids, image ids included. The embedding may have more rows, never fewer."""
        return self.num_image_tokens + self.text_pieces

    @property
    def first_appended_id(self) -> int:
        """Return the id of [MASK], the first id after the trained pieces."""
        return self.vocab_size - APPENDED_COUNT

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Return the ids of the special pieces by name; no text encodes to any of them."""
        return MappingProxyType(self._specials)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end an answer: `<eop>`, `</s>` (which Med weights learnt) and the eos."""
        return frozenset({self.id_of("<eop>"), self.id_of("</s>"), self.eos_token_id})

    def id_of(self, token: str) -> int:
        """Return the id of a special piece. Raises UsageError for any other word."""
        try:
            return self._specials[token]
        except KeyError:
            known = " ".join(self._specials)
            raise UsageError(
                say(f"“{token}”不是 ChatGLM 的特殊标记", f"{token!r} is not a special token of ChatGLM"),
                say(f"可用的特殊标记：{known}", f"the special tokens are {known}"),
            ) from None

    # ------------------------------------------------------------ text to ids

    def encode(self, text: str, *, dummy_prefix: bool = True) -> list[int]:
        """Return the ids of any text; never a special id.

        Lone surrogates become U+FFFD. Without `dummy_prefix` no word border is prepended.
        """
        prepared = _prepare(text)
        # With a prepended newline piece the border comes before that, and both are dropped.
        ids = (
            self._processor.encode(prepared)
            if dummy_prefix
            else self._processor.encode(NEWLINE_PIECE + prepared)[2:]
        )
        return [token + self.num_image_tokens for token in ids]

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """Return the ids of a template's segments: one id per `Control`, adjacent `Text` joined first."""
        return segment_ids(segments, self.encode, self.id_of)

    def build_prompt(self, segments: Sequence[Segment], max_length: int | None = None) -> list[int]:
        """Return the ids of a prompt, ready for the model: it has a mask token and `<sop>`.

        Both are appended to segments without them; segments with [MASK] get only `<sop>` (v0: `</s>` in
        between unless it is last, as in training), and segments with both are unchanged. `max_length` counts
        all ids: the end of the prompt's text is cut, not the appended ids. Raises UsageError for an unknown
        token or for `<sop>` without a mask token.
        """
        ids = self.encode_segments(segments)
        named = {segment.token for segment in segments if isinstance(segment, Control)}
        masked = not named.isdisjoint(("[MASK]", "[gMASK]"))
        if "<sop>" in named:
            if not masked:
                raise UsageError(
                    say(
                        "提示模板有 <sop> 却没有 [gMASK] 或 [MASK]",
                        "the template has <sop> but no [gMASK] or [MASK]",
                    ),
                    say(
                        "请在 <sop> 之前加上 [gMASK]，或去掉 <sop>",
                        "put [gMASK] before <sop>, or leave <sop> out",
                    ),
                )
            return ids
        if masked and self.generation == "v11":
            return [*ids, self.id_of("<sop>")]
        return self.add_specials(ids, max_length=max_length)

    def add_specials(
        self, ids: Sequence[int], answer: Sequence[int] | None = None, *, max_length: int | None = None
    ) -> list[int]:
        """Return encoded text with the original's special ids, followed by `answer` and `<eop>` if given.

        v1.1 always appends [gMASK] `<sop>`. v0 appends [gMASK] only if no mask token is there, `</s>` if the
        last id then is not a mask token, and `<sop>`. `max_length` cuts the end of `ids`, never specials.
        """
        sop, mask, gmask = self.id_of("<sop>"), self.id_of("[MASK]"), self.id_of("[gMASK]")
        text = list(ids if max_length is None else ids[: max(0, max_length - 2)])
        if self.generation == "v11" or (mask not in text and gmask not in text):
            text.append(gmask)
        if text[-1] not in (mask, gmask):
            text.append(self.id_of("</s>"))
        text.append(sop)
        return text if answer is None else [*text, *answer, self.id_of("<eop>")]

    # ------------------------------------------------------------ ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. Pads, control tokens, image ids and ids past the last piece have no text."""
        pieces = self._processor.decode(list(self._text_pieces_of(ids)))
        return _PLACEHOLDER.sub(lambda found: _PLACEHOLDERS[found[0]], pieces)

    def _text_pieces_of(self, ids: Iterable[int]) -> Iterator[int]:
        pad, first, last = self.pad_token_id, self.num_image_tokens, self.vocab_size
        return (token - first for token in ids if first <= token < last and token != pad)

    def stream(self) -> StreamText:
        """Return a streaming decoder for an answer."""
        return StreamText(self.decode, unfinished)


def _read_vocabulary(path: Path, num_image_tokens: int | None, eos_token: str | None) -> ChatGLMTokenizer:
    model = vocabulary_bytes(path)
    return ChatGLMTokenizer(model, num_image_tokens=num_image_tokens, eos_token=eos_token, where=str(path))


def _mismatch(folder: Path, config: Mapping[str, Any], difference: str) -> CheckpointError:
    size = PUBLISHED_SIZES[generation_of(config)]
    return CheckpointError(
        say(
            f"词表与权重不匹配（{difference}）：{folder / FILE_NAME} 与 {folder / 'config.json'}",
            f"the vocabulary does not match ({difference}): {folder / FILE_NAME}, {folder / 'config.json'}",
        ),
        say(
            f"请换上与权重同一版本的 {FILE_NAME}（原版为 {size} 字节）",
            f"put the {FILE_NAME} published with these weights there (the original has {size} bytes)",
        ),
    )


def unfinished(text: str) -> int:
    """Return how many last characters of decoded text may still change with more ids.

    These are the bytes of an unfinished character, and a beginning of `<n>`, `<|tab|>` or `<|blank_k|>`
    spelled in ordinary pieces: the complete one is decoded as white space.
    """
    at = text.rfind("<", max(0, len(text) - _LONGEST_START))
    if at >= 0 and text[at:] in _PLACEHOLDER_STARTS:
        return len(text) - at
    return unfinished_characters(text)


def _prepare(text: str) -> str:
    text = well_formed(text).replace("\n", NEWLINE_PIECE).replace("\t", TAB_PIECE)
    # Greedy from the left takes 80 first, as the original's loop from 80 down to 2 does.
    return _BLANKS.sub(lambda run: blank_piece(len(run[0])), text)


def chatglm_special_tokens(folder: Path) -> SpecialTokens:
    """Return the control pieces of the vocabulary in `folder`, and their roles."""
    tokenizer = ChatGLMTokenizer.from_folder(folder)
    roles = {"bos_token": "<sop>", "eos_token": tokenizer.eos_token, "pad_token": "<pad>"}
    return SpecialTokens(tuple(tokenizer.special_ids), roles)
