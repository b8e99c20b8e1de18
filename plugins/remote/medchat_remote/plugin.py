"""The entry point of the remote backbone. Importing it imports no HTTP client."""

from __future__ import annotations

from medchat.plugin_kit import Backbone, PromptTemplate, hookimpl
from medchat_remote.backbone import RemoteBackbone
from medchat_remote.messages import MessagesTemplate

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Return the backbone of this plugin."""
    return [RemoteBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Return the template, so that a saved session finds it by name."""
    return [MessagesTemplate()]
