"""Trains a small vocabulary in the form of Bloom's `tokenizer.json`. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from medchat.torchside.bloom.tokenizer import BOS, EOS, PAD, UNK

#: How the published tokenizer cuts text before merging (specification section 6). Oniguruma reads the
#: brackets inside as one nested class; Python's `re` would not.
WORDS = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def train_tokenizer(corpus: Iterable[str], size: int, chat_tokens: Sequence[str] = ()) -> Tokenizer:
    """Return a byte-level BPE vocabulary in the published form, of at most `size` tokens before `chat_tokens`.

    Every string can be encoded: all 256 bytes are in it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_special(token) for token in (UNK, BOS, EOS, PAD)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Lone surrogates cannot be encoded, and no file holds them.
    tokenizer.train_from_iterator((text.encode("utf-8", "ignore").decode() for text in corpus), trainer)
    tokenizer.add_special_tokens([_special(token) for token in chat_tokens])
    return tokenizer


def _special(token: str) -> AddedToken:
    return AddedToken(token, normalized=False, special=True)
