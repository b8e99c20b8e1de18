"""The entry point of the Huozi backbone. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from medchat.api import Backbone, PromptTemplate
from medchat.hookspecs import hookimpl
from medchat_huozi.backbone import HuoziBackbone
from medchat_huozi.prompts import HUOZI

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Offer the one backbone of this plugin."""
    return [HuoziBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Offer Huozi's own form by name, so that `--template huozi` finds it."""
    return [HUOZI]
