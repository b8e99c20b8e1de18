"""Checks that a vocabulary matches the weights, and trains a small one for tiny models. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medchat.inference.prompt_ids import well_formed
from medchat.inference.vocabulary_training import (
    fragments_of,
    frequent_characters,
    require_vocabulary_size,
    train_sentencepiece,
)
from medchat.plugin_kit import CheckpointError, say
from medchat_llama.folder import BASE_OF_ROWS, LlamaShape
from medchat_llama.tokenizer import FILE_NAME, LlamaTokenizer

#: Rows that some conversions add after the pieces, for a pad token or to round the number up.
_SPARE_ROWS = 64


def find_vocabulary(model: Path, rows: int, adapter: Path | None = None) -> LlamaTokenizer:
    """Read the vocabulary of weights with `rows` rows: from `adapter`, if that grew them, else from `model`.

    Without one in the adapter's folder the model's is used. Raises CheckpointError naming both files if it
    belongs to other weights: 32000, 49953 and 49954 pieces are three different vocabularies.
    """
    own = adapter / FILE_NAME if adapter is not None else None
    path = own if own is not None and own.is_file() else model / FILE_NAME
    tokenizer = LlamaTokenizer.from_file(path)
    spare = rows - tokenizer.size
    may_spare = adapter is None and rows not in BASE_OF_ROWS
    if spare == 0 or (may_spare and 0 < spare <= _SPARE_ROWS):
        return tokenizer
    weights = adapter if adapter is not None else model
    raise CheckpointError(
        say(
            f"词表与权重不匹配：{path} 有 {tokenizer.size} 个词元，而 {weights} 的权重有 {rows} 行",
            f"the vocabulary does not match: {path} has {tokenizer.size} tokens, the weights of {weights} "
            f"have {rows} rows",
        ),
        say(
            f"请换上与权重一起发布的 {FILE_NAME}（原版 LLaMA 32000，Chinese-LLaMA 49953，Chinese-Alpaca 49954）",
            f"put the {FILE_NAME} published with these weights there (LLaMA 32000, Chinese-LLaMA 49953, "
            "Chinese-Alpaca 49954)",
        ),
    )


def rows_note(shape: LlamaShape, stored: int, folder: Path) -> tuple[str, ...]:
    """Return a note if config.json states other rows than are stored: some merge scripts keep the old number."""
    if shape.vocab_size == stored:
        return ()
    file = folder / "config.json"
    return (
        say(
            f"{file} 中的 vocab_size 是 {shape.vocab_size}，权重实为 {stored} 行；已按权重加载",
            f"{file} states vocab_size {shape.vocab_size}, the weights have {stored} rows; the weights count",
        ),
    )


# ---------------------------------------------------------------- training a small one

#: Ids 0, 1, 2 and the 256 bytes, with which every vocabulary of the family begins.
_SMALLEST = 3 + 256


def train_llama_vocabulary(corpus: Iterable[str], size: int) -> bytes:
    """Return a vocabulary like the published ones (BPE with byte fallback), trained on `corpus`.

    `size` bounds the pieces; a small corpus yields fewer. The same corpus gives the same bytes. Raises
    UsageError if the corpus has no text or `size` leaves no room for letters.
    """
    require_vocabulary_size(size, _SMALLEST + 32)
    texts = [well_formed(text) for text in corpus]
    kept = frequent_characters(texts, (size - _SMALLEST) * 3 // 4, excluded="\n\r\t\0\u2581\ufffd")
    proto = train_sentencepiece(
        [fragment for text in texts for fragment in fragments_of(text, kept)],
        size,
        model_type="bpe",
        byte_fallback=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )
    return bytes(proto.SerializeToString(deterministic=True))
