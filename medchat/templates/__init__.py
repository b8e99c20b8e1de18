"""Prompt templates: how they turn a conversation into segments, where they are found, how they fit.

Knows no tokenizer and no model: lengths come from the `count` function a caller passes to `fit`.
"""

from medchat.templates.catalogue import list_templates, load_template
from medchat.templates.fitting import Fitted, fit
from medchat.templates.json_template import JsonTemplate, read_template
from medchat.templates.with_input import ignores_input, same_template, takes_dialogues, with_input

__all__ = [
    "Fitted",
    "JsonTemplate",
    "fit",
    "ignores_input",
    "list_templates",
    "load_template",
    "read_template",
    "same_template",
    "takes_dialogues",
    "with_input",
]
