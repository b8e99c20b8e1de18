"""Huozi 1.0 (HIT-SCIR/huozi-7b-sft), plain or with BenTsao's LoRA, as a MedChat backbone.

Bloom's architecture with chat tokens. Cheap to import: torch, transformers and tokenizers are imported
inside the methods that need them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.api import (
    AdapterCard,
    Backbone,
    GenerationConfig,
    LoadOptions,
    ModelCard,
    PromptTemplate,
    SFTRecipe,
    SpecialTokens,
)
from medchat_bloom.huozi.prompts import BEGIN, END, HUOZI
from medchat_bloom.huozi.weights import ADAPTER_TEMPLATE, KNOWN_WEIGHTS

if TYPE_CHECKING:
    from medchat.inference.chat_model import CausalChatModel

_CHAT_TOKENS = (BEGIN.token, END.token)


class HuoziBackbone(Backbone):
    """Huozi 1.0: its own chat form when plain, `bloom_deploy` with an adapter; stops on both end tokens."""

    name = "huozi"
    summary: Mapping[str, str] = {
        "zh": "活字 1.0（Huozi）及 BenTsao 的医学 LoRA",
        "en": "Huozi 1.0 and BenTsao's medical LoRA",
    }
    known_weights = KNOWN_WEIGHTS
    # specs/backbones.md, section 7: the published demo's defaults.
    generation = GenerationConfig(
        max_new_tokens=512, temperature=0.5, top_k=50, top_p=0.95, repetition_penalty=1.03
    )

    def load(self, options: LoadOptions) -> CausalChatModel:
        """Load a checkpoint folder in any of the published layouts, and its adapters."""
        from medchat.inference.decode import Unchanged
        from medchat.inference.postprocess import StreamingCleanup
        from medchat_bloom.loading import load_bloom_chat

        # The published chat function cleans its answers up; BenTsao's script, for the adapter, does not.
        markers = dict.fromkeys(_CHAT_TOKENS, "")
        cleanup = Unchanged if options.adapters else partial(StreamingCleanup, replaced=markers)
        return load_bloom_chat(
            options, backbone=self.name, base="huozi", required=_CHAT_TOKENS, cleanup=cleanup
        )

    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would, as far as it shows without reading weights."""
        from medchat_bloom.loading import prepare_bloom

        prepare_bloom(options, "huozi", _CHAT_TOKENS)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the form of the last adapter, else the chat form."""
        from medchat.checkpoints.stated_template import template_of

        specials = partial(self.special_tokens, options)
        return template_of(options, ADAPTER_TEMPLATE, HUOZI, [HUOZI], specials)

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the last adapter's form where it is known, and the chat form of Huozi without one."""
        from medchat.checkpoints.stated_template import trained_template

        form = trained_template(options, [HUOZI], partial(self.special_tokens, options))
        if form is None and not options.adapters:
            form = HUOZI
        return (form.name,) if form else ()

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the control tokens of the vocabulary beside the weights."""
        from medchat_bloom.tokenizer import BloomTokenizer

        return BloomTokenizer.from_folder(options.model).special_tokens

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it has no Huozi's chat tokens."""
        from medchat_bloom.folder import is_bloom
        from medchat_bloom.inspection import card, is_huozi

        if not is_bloom(path) or not is_huozi(path):
            return None
        return card(
            path,
            backbone=self.name,
            family="Huozi",
            generation=_generation(path),
            template=self.template(LoadOptions(path)).name,
        )

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """Say which published adapter the folder holds, and what is wrong with it."""
        from medchat.inference.adapters.inspect import inspect_adapter

        return inspect_adapter(path)

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a miniature random checkpoint in the published layout: one file of weights, chat tokens."""
        from medchat_bloom.tiny import write_tiny_bloom

        choices: dict[str, Any] = {"layout": "bin", "chat_tokens": (*_CHAT_TOKENS, "<|endoftext|>"), **shape}
        write_tiny_bloom(path, corpus=corpus, seed=seed, **choices)

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        """All methods of fine-tuning."""
        from medchat.training.recipe import recipes_of
        from medchat_bloom.huozi.recipes import HuoziFamily

        recipes = recipes_of(HuoziFamily(self))
        # First what BenTsao did: the method where none is named.
        return {"lora": recipes["lora"], **recipes}


def _generation(path: Path) -> str:
    """Return the release: 2.0 pads with the end token (specs/backbones.md, section 7)."""
    from medchat.checkpoints.layout import read_config

    return "2.0 (RLHF)" if read_config(path).get("pad_token_id") == 2 else "1.0"
