"""The entry point of the backbones `bloom` and `huozi`. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from medchat.plugin_kit import Backbone, PromptTemplate, hookimpl
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_bloom.huozi.prompts import HUOZI

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Return Bloom, and Huozi, which has the same architecture."""
    return [BloomBackbone(), HuoziBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Return Huozi's own template, so that `--template huozi` finds it."""
    return [HUOZI]
