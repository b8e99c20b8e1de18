"""The entry point of the LLaMA backbone. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from medchat.plugin_kit import Backbone, PromptTemplate, hookimpl
from medchat_llama.backbone import LlamaBackbone

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Return the backbone of this plugin."""
    return [LlamaBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Return the template of lora-alpaca-med-alldata, so that a saved session finds it."""
    from medchat_llama.prompts import MED_ALLDATA

    return [MED_ALLDATA]
