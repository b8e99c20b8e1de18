"""The entry point of the Bloom backbone. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from medchat.api import Backbone
from medchat.hookspecs import hookimpl
from medchat_bloom.backbone import BloomBackbone

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Offer the one backbone of this plugin."""
    return [BloomBackbone()]
