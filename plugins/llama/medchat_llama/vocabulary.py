"""Checks that a vocabulary matches the weights, and trains a small one for tiny models. No torch here."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.inference.prompt_ids import well_formed
from medchat.plugin_kit import CheckpointError, UsageError, say
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
#: SentencePiece skips longer sentences (in bytes).
_LONGEST_FRAGMENT = 800


def train_llama_vocabulary(corpus: Iterable[str], size: int) -> bytes:
    """Return a vocabulary like the published ones (BPE with byte fallback), trained on `corpus`.

    `size` bounds the pieces; a small corpus yields fewer. The same corpus gives the same bytes. Raises
    UsageError if the corpus has no text or `size` leaves no room for letters.
    """
    least = _SMALLEST + 32
    if size < least:
        raise UsageError(
            say(f"词表大小 {size} 太小", f"a vocabulary of {size} is too small"),
            say(f"至少要 {least}", f"it must be at least {least}"),
        )
    fragments = list(_fragments(corpus, most_characters=(size - _SMALLEST) * 3 // 4))
    if not fragments:
        raise UsageError(
            say("语料里没有文字，无法训练词表", "the corpus holds no text to train a vocabulary on"),
            say("请提供至少一句话", "give at least one sentence"),
        )
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(fragments),
        model_writer=writer,
        model_type="bpe",
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    proto = protocol.ModelProto.FromString(writer.getvalue())
    # The trainer's input and output paths are not part of a vocabulary.
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    return bytes(proto.SerializeToString(deterministic=True))


def _fragments(corpus: Iterable[str], most_characters: int) -> Iterator[str]:
    """Split the corpus at line ends and at rare characters, which use byte fallback."""
    texts = [well_formed(text) for text in corpus]
    counts = Counter(character for text in texts for character in text)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    kept = {character for character in ranked[:most_characters] if character not in "\n\r\t\0\u2581\ufffd"}
    for text in texts:
        spelled = "".join(character if character in kept else "\n" for character in text)
        for run in spelled.split("\n"):
            for start in range(0, len(run), _LONGEST_FRAGMENT):
                if run[start : start + _LONGEST_FRAGMENT].strip():
                    yield run[start : start + _LONGEST_FRAGMENT]
