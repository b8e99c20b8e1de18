"""How Bloom is fine-tuned."""

from __future__ import annotations

from functools import partial

from medchat.api import LoadOptions, PromptTemplate
from medchat.checkpoints.stated_template import trained_template
from medchat.inference.chat_model import TokenChatModel
from medchat.templates import load_template
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.family import BloomFamily
from medchat_bloom.weights import ADAPTER_TEMPLATE


class BloomMedFamily(BloomFamily):
    """Adapters and whole models alike learn BenTsao's form for Bloom, unless what lies below has its own."""

    name = "bloom"

    def __init__(self, backbone: BloomBackbone) -> None:
        self._backbone = backbone

    def load(self, options: LoadOptions) -> TokenChatModel:
        """Load a checkpoint and its adapters."""
        return self._backbone.load(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the form that chat uses."""
        return self._backbone.template(options)

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the form that what lies below was trained in, else BenTsao's."""
        known = trained_template(options, specials=partial(self._backbone.special_tokens, options))
        return known or load_template(ADAPTER_TEMPLATE)
