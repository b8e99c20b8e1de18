"""The entry point of the ChatGLM backbone. Importing it imports neither torch nor transformers."""

from __future__ import annotations

from medchat.plugin_kit import Backbone, PromptTemplate, hookimpl
from medchat_chatglm.backbone import ChatGLMBackbone

medchat_api_version = 1


@hookimpl
def medchat_backbones() -> list[Backbone]:
    """Return the backbone of this plugin."""
    return [ChatGLMBackbone()]


@hookimpl
def medchat_templates() -> list[PromptTemplate]:
    """Return ChatGLM's own templates by name, so that `--template med_chatglm_demo` finds one."""
    from medchat_chatglm.prompts import TEMPLATES

    return list(TEMPLATES.values())
