"""How Huozi is fine-tuned."""

from __future__ import annotations

from functools import partial

from medchat.api import LoadOptions, PromptTemplate
from medchat.checkpoints.stated_template import trained_template
from medchat.inference.chat_model import ChatTokenizer, TokenChatModel
from medchat.templates import load_template
from medchat_bloom.family import BloomFamily
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_bloom.huozi.prompts import BEGIN, END, HUOZI
from medchat_bloom.huozi.weights import ADAPTER_TEMPLATE
from medchat_bloom.tokenizer import BloomTokenizer


class HuoziFamily(BloomFamily):
    """Adapters learn BenTsao's form and end with `</s>`, a whole model its own form and that form's end."""

    name = "huozi"
    base = "huozi"
    required = (BEGIN.token, END.token)
    forms = (HUOZI,)

    def __init__(self, backbone: HuoziBackbone) -> None:
        self._backbone = backbone

    def load(self, options: LoadOptions) -> TokenChatModel:
        """Load a checkpoint and its adapters."""
        return self._backbone.load(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the form that chat uses."""
        return self._backbone.template(options)

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the form that what lies below states, else as chat has it with and without an adapter."""
        usual = HUOZI if kind == "model" else load_template(ADAPTER_TEMPLATE)
        specials = partial(self._backbone.special_tokens, options)
        return trained_template(options, self.forms, specials) or usual

    def end_id(self, tokenizer: ChatTokenizer, template: PromptTemplate) -> int:
        """Return the id of the end of an utterance in Huozi's own form, of the text in every other."""
        own = END in template.render((), "?")
        assert isinstance(tokenizer, BloomTokenizer)
        return tokenizer.id_of(END.token) if own else tokenizer.eos_token_id
