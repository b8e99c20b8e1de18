"""Bloom's byte-level tokenizer. See docs/specs/models.md, "Bloom". No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from medchat.hf.tokenizer import HFTokenizer

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
BEGIN_OF_UTTERANCE, END_OF_UTTERANCE = "<|beginofutterance|>", "<|endofutterance|>"
#: The published tokenizer's pre-tokenization pattern (docs/specs/models.md, "Bloom"). Oniguruma parses the
#: inner brackets as a nested class; Python's `re` would not.
WORDS = r" ?[^(\s|[.,!?…。，、।۔،])]+"


class BloomTokenizer(HFTokenizer):
    """Bloom's tokenizer: nothing is added before or after a prompt."""

    usual: ClassVar[Mapping[str, str]] = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    always_control = (UNK, BOS, EOS, PAD, BEGIN_OF_UTTERANCE, END_OF_UTTERANCE)
    expressions = frozenset({WORDS})

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end an answer: `</s>`, and `<|endofutterance|>` if the vocabulary has it."""
        chat_end = self.special_ids.get(END_OF_UTTERANCE, self.eos_token_id)
        return frozenset({self.eos_token_id, chat_end})
