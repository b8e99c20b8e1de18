"""Bloom-7B (bloom-7b1, bloomz-7b1) and BenTsao's adapter for it as a MedChat backbone.

Cheap to import: torch, transformers and tokenizers are imported inside the methods that need them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from medchat.language import say
from medchat.templates import load_template
from medchat_bloom.weights import ADAPTER_TEMPLATE, BASE_TEMPLATE, KNOWN_WEIGHTS, WHICH_BASE

if TYPE_CHECKING:
    from medchat.inference.chat_model import CausalChatModel


class BloomBackbone(Backbone):
    """Bloom with 250680 tokens in 250880 rows, plain or with LoRA adapters on the fused query_key_value."""

    name = "bloom"
    summary: Mapping[str, str] = {
        "zh": "Bloom-7B（bloomz-7b1、bloom-7b1）及 BenTsao 的医学 LoRA",
        "en": "Bloom-7B (bloomz-7b1, bloom-7b1) and BenTsao's medical LoRA",
    }
    known_weights = KNOWN_WEIGHTS
    # specs/backbones.md, section 9: the original's script. It searched with four beams, which nobody can
    # read along: `--num-beams 4` asks for that.
    generation = GenerationConfig(max_new_tokens=256, temperature=0.1, top_p=0.75, top_k=40)

    def load(self, options: LoadOptions) -> CausalChatModel:
        """Load a checkpoint folder in any of the published layouts, and its adapters."""
        from medchat_bloom.loading import load_bloom_chat

        notes = (which_base(),) if options.adapters else ()
        return load_bloom_chat(options, backbone=self.name, base="bloom", notes=notes)

    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would, as far as it shows without reading weights."""
        from medchat_bloom.loading import prepare_bloom

        prepare_bloom(options, "bloom")

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the form of the last adapter or that the weights state, else the question alone."""
        from medchat.checkpoints.stated_template import template_of

        plain = load_template(BASE_TEMPLATE)
        return template_of(options, ADAPTER_TEMPLATE, plain, specials=lambda: self.special_tokens(options))

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the last adapter's form where it is known; of a Bloom that states none there is none."""
        from medchat.checkpoints.stated_template import trained_template

        form = trained_template(options, specials=lambda: self.special_tokens(options))
        return (form.name,) if form else ()

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the control tokens of the vocabulary beside the weights."""
        from medchat_bloom.tokenizer import BloomTokenizer

        return BloomTokenizer.from_folder(options.model).special_tokens

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it is no Bloom, or a Huozi."""
        from medchat_bloom.folder import is_bloom
        from medchat_bloom.inspection import card, is_huozi

        if not is_bloom(path) or is_huozi(path):
            return None
        return card(
            path,
            backbone=self.name,
            family="Bloom",
            generation="BLOOM / BLOOMZ",
            template=self.template(LoadOptions(path)).name,
            notes=(which_base(),),
        )

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """Say which published adapter the folder holds, and what is wrong with it."""
        from medchat.inference.adapters.inspect import inspect_adapter

        return inspect_adapter(path)

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a miniature random checkpoint in the published layout."""
        from medchat_bloom.tiny import write_tiny_bloom

        sizes: dict[str, Any] = {**shape}
        write_tiny_bloom(path, corpus=corpus, seed=seed, **sizes)

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        """All methods of fine-tuning."""
        from medchat.training.recipe import recipes_of
        from medchat_bloom.recipes import BloomMedFamily

        recipes = recipes_of(BloomMedFamily(self))
        # First what BenTsao did: the method where none is named.
        return {"lora": recipes["lora"], **recipes}


def which_base() -> str:
    """Return what the user must know: no file tells the two bases apart, and either loads silently."""
    return say(WHICH_BASE["zh"], WHICH_BASE["en"])
