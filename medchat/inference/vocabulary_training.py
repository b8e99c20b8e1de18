"""Trains small SentencePiece vocabularies for the tiny models of the families. No torch here."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as protocol

from medchat.errors import UsageError
from medchat.language import say

#: SentencePiece skips longer sentences (in bytes); ours are cut much shorter.
_LONGEST_FRAGMENT = 800


def frequent_characters(texts: Sequence[str], most: int, excluded: Collection[str]) -> set[str]:
    """Return the `most` most frequent characters of `texts`, without those in `excluded`.

    Every character of the training text needs a piece of its own; the others use byte pieces.
    """
    counts = Counter(character for text in texts for character in text)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return {character for character in ranked[:most] if character not in excluded}


def fragments_of(text: str, kept: Collection[str]) -> Iterator[str]:
    """Yield the parts of `text` between characters that are not in `kept`, cut to SentencePiece's limit."""
    spelled = "".join(character if character in kept else "\n" for character in text)
    for run in spelled.split("\n"):
        for start in range(0, len(run), _LONGEST_FRAGMENT):
            if run[start : start + _LONGEST_FRAGMENT].strip():
                yield run[start : start + _LONGEST_FRAGMENT]


def require_vocabulary_size(size: int, least: int) -> None:
    """Raise UsageError for a vocabulary of fewer than `least` pieces."""
    if size < least:
        raise UsageError(
            say(f"词表大小 {size} 太小", f"a vocabulary of {size} is too small"),
            say(f"至少要 {least}", f"it must be at least {least}"),
        )


def train_sentencepiece(fragments: Sequence[str], size: int, **settings: Any) -> protocol.ModelProto:
    """Return a SentencePiece model of at most `size` pieces; the same arguments give the same model.

    `settings` are the trainer's own. Raises UsageError if there are no `fragments`.
    """
    if not fragments:
        raise UsageError(
            say("语料里没有文字，无法训练词表", "the corpus holds no text to train a vocabulary on"),
            say("请提供至少一句话", "give at least one sentence"),
        )
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(fragments),
        model_writer=writer,
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        split_digits=True,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
        **settings,
    )
    proto = protocol.ModelProto.FromString(writer.getvalue())
    # The trainer's input and output paths are not part of a vocabulary.
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    return proto
