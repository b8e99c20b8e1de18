"""Statistics of a run's data: lengths, truncation, and the first example as the model sees it.

Needs the tokenizer, no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

from medchat.api import PreviewPiece, SFTSurvey
from medchat.inference.answer_deltas import TextDecoder
from medchat.training.features import Feature, FeatureSet


class PreviewTokenizer(Protocol):
    """What a tokenizer must offer to show ids as text."""

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The ids of the special tokens by name."""
        ...

    def stream(self) -> TextDecoder:
        """Return a streaming decoder for ids; special ids give no text."""
        ...


#: A family's collator: `input_ids` and `labels` [B, T] among what it returns, as tensors.
Collator = Callable[[Sequence[Feature]], Mapping[str, Any]]


def survey(
    made: FeatureSet,
    vocabulary: PreviewTokenizer,
    *,
    template: str,
    max_length: int,
    collate: Collator | None = None,
) -> SFTSurvey:
    """Return the statistics to show before training. `template` is the template's name.

    With `collate` the preview shows what that collator labels (some label more than the answer).
    """
    first = made.features[0]
    return SFTSurvey(
        template=template,
        records=len(made.lengths),
        max_length=max_length,
        lengths=made.lengths,
        lost_turns=made.lost_turns,
        cut_questions=made.cut_questions,
        cut_answers=made.cut_answers,
        unlabelled=tuple(record.where for record in made.left_out),
        tokens=made.tokens,
        label_tokens=made.label_tokens,
        longest=max(feature.length for feature in made.features),
        preview=preview(vocabulary, _collated(first, collate) if collate else _labelled(first)),
    )


def preview(vocabulary: PreviewTokenizer, labelled: Sequence[tuple[int, bool]]) -> tuple[PreviewPiece, ...]:
    """Return (id, learned) pairs as text: a piece per special token, and one per stretch between them.

    A stretch is decoded as one, because a Chinese character may take several ids. The pieces that are not
    special, joined, are the decoded text.
    """
    names = {number: name for name, number in vocabulary.special_ids.items()}
    pieces: list[PreviewPiece] = []
    for (special, learned), run in groupby(labelled, key=lambda pair: (pair[0] in names, pair[1])):
        ids = [token for token, _ in run]
        if special:
            pieces += [PreviewPiece(names[token], learned, special=True) for token in ids]
            continue
        decoder = vocabulary.stream()
        text = "".join([*map(decoder.feed, ids), decoder.finish()])
        if text:
            pieces.append(PreviewPiece(text, learned))
    return tuple(pieces)


def _labelled(feature: Feature) -> list[tuple[int, bool]]:
    prompt = [(token, False) for token in feature.prompt_ids]
    return prompt + [(token, True) for token in feature.answer_ids]


def _collated(feature: Feature, collate: Collator) -> list[tuple[int, bool]]:
    """The row of a batch of one, without padding. Labels are not shifted."""
    batch = collate([feature])
    ids, labels = (batch[name][0].tolist() for name in ("input_ids", "labels"))
    learned = [label >= 0 for label in labels]
    last = max(number for number, label in enumerate(learned, start=1) if label)
    return list(zip(ids, learned, strict=True))[: max(last, feature.length)]
