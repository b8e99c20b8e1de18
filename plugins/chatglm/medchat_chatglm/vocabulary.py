"""The file `ice_text.model`: its two published layouts, completing the older one, training a small one.

Layout of the pieces (docs/specs/models.md, "ChatGLM-6B vocabulary"): five special ones (`<unk>`,
`<s>`, `</s>`, `<pad>`, `<n>`), the word border, the trained pieces; then eight control pieces, the tab, runs of 2 to 80
blanks and the 256 bytes. Files of the icetk era (March 2023) end before the control pieces.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import sentencepiece
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.plugin_kit import CheckpointError, UsageError, say

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

#: SentencePiece skips longer sentences (in bytes); ours are cut much shorter.
_LONGEST_FRAGMENT = 800
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
    if size < 16:
        raise UsageError(
            say(f"词表大小 {size} 太小", f"a vocabulary of {size} is too small"),
            say("至少要 16", "it must be at least 16"),
        )
    fragments = _fragments(corpus, most_characters=(size - len(FIRST_PIECES) - 1) * 3 // 4)
    if not fragments:
        raise UsageError(
            say("语料里没有文字，无法训练词表", "the corpus holds no text to train a vocabulary on"),
            say("请提供至少一句话", "give at least one sentence"),
        )
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(fragments),
        model_writer=writer,
        model_type="unigram",
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name=normalization,
        split_digits=True,
        user_defined_symbols=[NEWLINE_PIECE],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    proto = protocol.ModelProto.FromString(writer.getvalue())
    _arrange(proto)
    return bytes(proto.SerializeToString(deterministic=True)) if icetk_era else _with_appended(proto)


def _fragments(corpus: Iterable[str], most_characters: int) -> list[str]:
    """Split the corpus where the tokenizer does (line ends, tabs, runs of spaces) and at rare characters.

    Every remaining character needs a piece of its own, so only the most frequent ones stay; the rest uses
    byte tokens.
    """
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore") for text in corpus]
    counts = Counter(character for text in texts for character in text)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    kept = {character for character in ranked[:most_characters] if character not in "\n\t\0\u2581"}
    return [piece for text in texts for fragment in _BREAKS.split(text) for piece in _cut(fragment, kept)]


def _cut(fragment: str, kept: set[str]) -> Iterator[str]:
    spelled = "".join(character if character in kept else "\n" for character in fragment)
    for run in spelled.split("\n"):
        for start in range(0, len(run), _LONGEST_FRAGMENT):
            if run[start : start + _LONGEST_FRAGMENT].strip():
                yield run[start : start + _LONGEST_FRAGMENT]


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
    # The trainer's input and output paths are not part of a vocabulary.
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
