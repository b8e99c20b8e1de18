"""LLaMA's tokenizer with plain SentencePiece: 32000 pieces, 49953 (Chinese-LLaMA), 49954 (Chinese-Alpaca).

The library's own conversion of these files gives other ids for ordinary Chinese; and the published
tokenizer_config.json names a class that does not exist and special tokens that are empty, which makes every
special id 0. So neither is used: ids are SentencePiece's, `<s>` (1) is prepended here, and the special ids
are those of the vocabulary. See docs/specs/models.md, "LLaMA and Chinese-Alpaca". No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.checkpoints.read_once import read_once
from medchat.checkpoints.vocabulary_file import vocabulary_bytes
from medchat.inference.detokenizer import StreamText
from medchat.inference.prompt_ids import segment_ids, special_id, well_formed
from medchat.plugin_kit import CheckpointError, Control, Segment, say

FILE_NAME = "tokenizer.model"
UNKNOWN, BEGIN, END, PAD = "<unk>", "<s>", "</s>", "[PAD]"
#: The first pieces of every vocabulary of the family: ids 0, 1 and 2.
FIRST_PIECES = (UNKNOWN, BEGIN, END)
_CONTROL = protocol.ModelProto.SentencePiece.CONTROL


class LlamaTokenizer:
    """Text to ids and back. Immutable after construction."""

    def __init__(self, model: bytes, where: str = "") -> None:
        """Read a vocabulary. Raises CheckpointError: damaged, or not these first three pieces."""
        self._processor = _open(model, where)
        self.size: int = self._processor.get_piece_size()
        self._specials = {piece: number for number, piece in enumerate(FIRST_PIECES)}
        pad = self._processor.piece_to_id(PAD)
        if pad != self._specials[UNKNOWN]:
            self._specials[PAD] = pad
        self._special_ids = frozenset(self._specials.values())
        self.bos_token_id = self._specials[BEGIN]
        self.eos_token_id = self._specials[END]
        # The plain vocabulary has none; padding is masked, and the recorded runs used 0 for both.
        self.pad_token_id = self._specials[UNKNOWN]
        #: A word border and a newline: prepended to a text, they suppress its own border.
        self._lead = "\n"
        self._lead_length = len(self._processor.encode(self._lead))

    @classmethod
    def from_file(cls, path: Path) -> LlamaTokenizer:
        """Read `tokenizer.model`. Raises CheckpointError if it is missing, damaged or of another model."""
        return read_once(_read_vocabulary, path)

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Return the ids of the special pieces by name; no text encodes to any of them."""
        return MappingProxyType(self._specials)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the id that ends an answer; BenTsao's adapters end with another one too (see `loading`)."""
        return frozenset({self.eos_token_id})

    def id_of(self, token: str) -> int:
        """Return the id of a special piece. Raises UsageError for any other word."""
        return special_id(token, self._specials)

    def encode_whole(self, text: str) -> list[int]:
        """Return SentencePiece's ids of a text at the beginning: with a word border, without special ids."""
        return list(self._processor.encode(well_formed(text)))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text that follows a prompt: without word border and special ids."""
        return list(self._processor.encode(self._lead + well_formed(text)))[self._lead_length :]

    def build_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt: `<s>`, then one id per `Control` and SentencePiece's ids of the text.

        A template that begins with `<s>`, as Jinja templates do, gets no second one. The first text gets a
        word border, as in training; so does a text after a `Control`. Raises UsageError for a control token
        that the vocabulary lacks.
        """
        ids = segment_ids(segments, self.encode_whole, self.id_of)
        begun = bool(segments) and segments[0] == Control(BEGIN)
        return ids if begun else [self.bos_token_id, *ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. Special ids and ids of rows without a piece have no text."""
        known = [token for token in ids if 0 <= token < self.size and token not in self._special_ids]
        return str(self._processor.decode(known))

    def stream(self) -> StreamText:
        """Return a streaming decoder for an answer."""
        return StreamText(self.decode)


def _read_vocabulary(path: Path) -> LlamaTokenizer:
    return LlamaTokenizer(vocabulary_bytes(path), str(path))


def _open(model: bytes, where: str) -> SentencePieceProcessor:
    try:
        proto = protocol.ModelProto.FromString(model)
        first = tuple(piece.piece for piece in proto.pieces[: len(FIRST_PIECES)])
        if first == FIRST_PIECES:
            for piece in proto.pieces[len(FIRST_PIECES) :]:
                # Chinese-Alpaca's `[PAD]` is an ordinary piece in the file, which text could be encoded to.
                if piece.piece == PAD:
                    piece.type = _CONTROL
            return SentencePieceProcessor(model_proto=proto.SerializeToString())
    except (DecodeError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(where, " ".join(str(error).split())[:120] or type(error).__name__) from None
    raise _damaged(
        where, say(f"开头不是 {' '.join(FIRST_PIECES)}", f"it does not begin with {' '.join(FIRST_PIECES)}")
    )


def _damaged(where: str, reason: str) -> CheckpointError:
    return CheckpointError(
        say(f"词表文件无法使用（{reason}）", f"the vocabulary file cannot be used ({reason})"),
        say(
            f"请重新下载与权重配套的 {FILE_NAME}",
            f"download the {FILE_NAME} published with these weights again",
        ),
        where=where,
    )
