"""Fine-tuning of Huozi."""

from __future__ import annotations

from medchat.inference.decode import ChatTokenizer
from medchat.plugin_kit import LoadOptions, PromptTemplate
from medchat_bloom.huozi.loading import HUOZI_LOADING
from medchat_bloom.huozi.prompts import END, HUOZI
from medchat_bloom.huozi.template_choice import HUOZI_TEMPLATES
from medchat_bloom.recipes import BloomFamily
from medchat_bloom.tokenizer import BloomTokenizer


class HuoziFamily(BloomFamily):
    """Adapters are trained with BenTsao's template and `</s>`, complete models with Huozi's own template and
    end token.
    """

    name = "huozi"
    loading = HUOZI_LOADING
    templates = HUOZI_TEMPLATES

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the template that the base states, else chat's for an adapter or a plain model."""
        usual = HUOZI if kind == "model" else self.templates.named(self.templates.adapted)
        return self.templates.trained(options) or usual

    def end_id(self, tokenizer: ChatTokenizer, template: PromptTemplate) -> int:
        """Return the id of the end of an utterance for Huozi's own template, of the text for every other."""
        own = END in template.render((), "?")
        assert isinstance(tokenizer, BloomTokenizer)
        return tokenizer.id_of(END.token) if own else tokenizer.eos_token_id
