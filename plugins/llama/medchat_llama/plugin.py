"""The entry point of the LLaMA backbone. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from medchat.plugin_kit import Backbone, PromptTemplate, hookimpl
from medchat_llama.backbone import LlamaBackbone

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Offer the one backbone of this plugin."""
    return [LlamaBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Offer the template of lora-alpaca-med-alldata by name, so that a saved session finds it again."""
    from medchat_llama.prompts import MED_ALLDATA

    return [MED_ALLDATA]
