"""The template that a Bloom, or an adapter for it, was trained with. No torch here."""

from __future__ import annotations

from medchat.checkpoints.stated_template import TemplateChoice
from medchat.plugin_kit import LoadOptions, SpecialTokens
from medchat_bloom.weights import ADAPTER_TEMPLATE, BASE_TEMPLATE


def bloom_special_tokens(options: LoadOptions) -> SpecialTokens:
    """Return the control tokens of the weights' vocabulary."""
    from medchat_bloom.tokenizer import BloomTokenizer

    return BloomTokenizer.from_folder(options.model).special_tokens


BLOOM_TEMPLATES = TemplateChoice(
    plain=BASE_TEMPLATE, adapted=ADAPTER_TEMPLATE, special_tokens=bloom_special_tokens
)
