"""The entry point of the remote backbone. Importing it imports no HTTP client."""

from __future__ import annotations

from medchat.plugin_kit import Backbone, PromptTemplate, hookimpl
from medchat_remote.backbone import RemoteBackbone
from medchat_remote.messages import MessagesTemplate

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Offer the one backbone of this plugin."""
    return [RemoteBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Offer the template by name, so that a saved session finds it again."""
    return [MessagesTemplate()]
