"""The file `ice_text.model`: its two published layouts, completing the older one, training a small one.

Layout of the pieces (docs/specs/models.md, "ChatGLM-6B vocabulary"): five special ones (`<unk>`,
`<s>`, `</s>`, `<pad>`, `<n>`), the word border, the trained pieces; then eight control pieces, the tab, runs of 2 to 80
blanks and the 256 bytes. Files of the icetk era (March 2023) end before the control pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import sentencepiece
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.inference.vocabulary_training import (
    fragments_of,
    frequent_characters,
    require_vocabulary_size,
    train_sentencepiece,
)
from medchat.plugin_kit import CheckpointError, say

FILE_NAME = "ice_text.model"
FIRST_PIECES = ("<unk>", "<s>", "</s>", "<pad>", "<n>")
WORD_BORDER = "\u2581"
CONTROL_PIECES = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
NEWLINE_PIECE, TAB_PIECE = "<n>", "<|tab|>"
LONGEST_BLANK = 80

Piece = protocol.ModelProto.SentencePiece


def blank_piece(length: int) -> str:
    """Return the piece of `length` spaces (2 to 80)."""
    return f"<|blank_{length}|>"


_APPENDED = (
    *((piece, Piece.CONTROL) for piece in CONTROL_PIECES),
    (TAB_PIECE, Piece.USER_DEFINED),
    *((blank_piece(length), Piece.USER_DEFINED) for length in range(2, LONGEST_BLANK + 1)),
    *((f"<0x{byte:02X}>", Piece.BYTE) for byte in range(256)),
)
#: How many pieces follow the trained ones: 8 + 80 + 256.
APPENDED_COUNT = len(_APPENDED)


def open_vocabulary(model: bytes, where: str = "") -> tuple[sentencepiece.SentencePieceProcessor, bool]:
    """Return SentencePiece with the completed model, and whether it lacked pieces; raises as `complete_model`."""
    complete, lacked_pieces = complete_model(model, where)
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=complete), lacked_pieces
    except RuntimeError:
        raise _not_a_vocabulary(model, where) from None


def complete_model(model: bytes, where: str = "") -> tuple[bytes, bool]:
    """Return the model with all pieces, and whether it lacked the appended ones (icetk era).

    `where` names the file in errors. Raises CheckpointError if the bytes are not a ChatGLM vocabulary.
    """
    try:
        proto = protocol.ModelProto.FromString(model)
    except DecodeError:
        raise _not_a_vocabulary(model, where) from None
    pieces = [piece.piece for piece in proto.pieces]
    if tuple(pieces[: len(FIRST_PIECES)]) != FIRST_PIECES:
        raise _not_a_vocabulary(model, where)
    expected = [piece for piece, _ in _APPENDED]
    if pieces[-APPENDED_COUNT:] == expected:
        return model, False
    if not set(expected).isdisjoint(pieces):
        raise _not_a_vocabulary(model, where)
    return _with_appended(proto), True


def _with_appended(proto: protocol.ModelProto) -> bytes:
    for piece, kind in _APPENDED:
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    proto.trainer_spec.byte_fallback = True
    return bytes(proto.SerializeToString(deterministic=True))


def _not_a_vocabulary(model: bytes, where: str) -> CheckpointError:
    if model.startswith(b"version https://git-lfs"):
        return CheckpointError(
            say(
                "词表文件只是一个 Git LFS 指针，不是真正的文件",
                "the vocabulary is a Git LFS pointer, not the file itself",
            ),
            say("在模型目录里运行 git lfs pull", "run git lfs pull in the model folder"),
            where=where,
        )
    return CheckpointError(
        say("词表文件已损坏，或不是 ChatGLM-6B 的词表", "the vocabulary is damaged or is not ChatGLM-6B's"),
        say(f"请重新下载 {FILE_NAME}", f"download {FILE_NAME} again"),
        where=where,
    )


# ---------------------------------------------------------------- training a small one

_BREAKS = re.compile(r"[\n\t\0\u2581]+| {2,}")


def train_chatglm_vocabulary(
    corpus: Iterable[str], size: int, *, normalization: str = "identity", icetk_era: bool = False
) -> bytes:
    """Return a vocabulary in the published layout, trained on `corpus`. The same corpus gives the same bytes.

    `size` bounds the trained pieces, the first five included (the 344 appended ones come on top; a small
    corpus yields fewer). `normalization` is SentencePiece's rule name: the published file uses "nmt_nfkc",
    which folds `，` to `,`; "identity" keeps Chinese punctuation. `icetk_era` omits the appended pieces, as in
    the older file. Raises UsageError if the corpus has no text or `size` is below 16.
    """
    require_vocabulary_size(size, 16)
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore") for text in corpus]
    kept = frequent_characters(texts, (size - len(FIRST_PIECES) - 1) * 3 // 4, excluded="\n\t\0\u2581")
    # Split where the tokenizer does: line ends, tabs, runs of spaces.
    parts = [part for text in texts for part in _BREAKS.split(text)]
    proto = train_sentencepiece(
        [fragment for part in parts for fragment in fragments_of(part, kept)],
        size,
        model_type="unigram",
        normalization_rule_name=normalization,
        user_defined_symbols=[NEWLINE_PIECE],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
    )
    _arrange(proto)
    return bytes(proto.SerializeToString(deterministic=True)) if icetk_era else _with_appended(proto)


def _arrange(proto: protocol.ModelProto) -> None:
    """Put the word border right after the first five, and drop pieces that duplicate appended ones."""
    first, trained = list(proto.pieces[: len(FIRST_PIECES)]), list(proto.pieces[len(FIRST_PIECES) :])
    taken = {piece for piece, _ in _APPENDED}
    border = [piece for piece in trained if piece.piece == WORD_BORDER] or [
        Piece(piece=WORD_BORDER, score=min((piece.score for piece in trained), default=0.0))
    ]
    rest = [piece for piece in trained if piece.piece != WORD_BORDER and piece.piece not in taken]
    del proto.pieces[:]
    proto.pieces.extend([*first, *border, *rest])
    proto.trainer_spec.vocab_size = len(proto.pieces)
