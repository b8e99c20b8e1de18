"""Examples as features, refused as fine-tuning refuses them."""

from __future__ import annotations

from collections.abc import Sequence

from medchat.api import Example, PromptTemplate
from medchat.training.features import Encoder, FeatureSet, encode_examples, refuse_left_out


def build_features(
    examples: Sequence[Example],
    template: PromptTemplate,
    encoder: Encoder,
    max_length: int,
    *,
    allow_left_out: bool = False,
) -> FeatureSet:
    """Encode one set of examples. Raises DataError if `refuse_left_out` does."""
    made = encode_examples(examples, template, encoder, max_length)
    refuse_left_out((made,), max_length, allow=allow_left_out)
    return made
