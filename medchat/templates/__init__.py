"""Prompt templates: forms that turn a conversation into segments, where they are found, how they fit.

Knows no tokenizer and no model: lengths come from the `count` function a caller passes to `fit`.
"""

from medchat.templates.catalogue import list_templates, load_template
from medchat.templates.fitting import Fitted, fit
from medchat.templates.json_template import JsonTemplate, read_template

__all__ = ["Fitted", "JsonTemplate", "fit", "list_templates", "load_template", "read_template"]
