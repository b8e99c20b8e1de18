"""The template that a Huozi, or an adapter for it, was trained with."""

from __future__ import annotations

from medchat.checkpoints.stated_template import TemplateChoice
from medchat_bloom.huozi.prompts import ADAPTER_TEMPLATE, HUOZI
from medchat_bloom.prompts import bloom_special_tokens

HUOZI_TEMPLATES = TemplateChoice(
    plain=HUOZI.name,
    adapted=ADAPTER_TEMPLATE,
    special_tokens=bloom_special_tokens,
    own=(HUOZI,),
    plain_is_trained=True,
)
