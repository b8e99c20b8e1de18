"""LLaMA-7B, Chinese-LLaMA-7B and Chinese-Alpaca-7B, with BenTsao's LoRA adapters, as a MedChat backbone.

Cheap to import: torch, transformers and sentencepiece are imported inside the methods that need them,
so `plugins list` and `models show` never pay for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat.api import (
    AdapterCard,
    Backbone,
    ChatModel,
    GenerationConfig,
    LoadOptions,
    ModelCard,
    PromptTemplate,
    SFTRecipe,
    SpecialTokens,
)
from medchat_llama.weights import KNOWN_WEIGHTS


class LlamaBackbone(Backbone):
    """The first LLaMA and its Chinese extensions, in every published layout, with LoRA adapters."""

    name = "llama"
    summary: Mapping[str, str] = {
        "zh": "LLaMA-7B、Chinese-Alpaca-7B 及本草（BenTsao）的 LoRA 适配器",
        "en": "LLaMA-7B and Chinese-Alpaca-7B with BenTsao's LoRA adapters",
    }
    known_weights = KNOWN_WEIGHTS
    # BenTsao's own script states temperature 0.1, top-p 0.75, top-k 40 and four beams without sampling,
    # which is plain beam search: nothing shows before its end. Sampled with the same numbers an answer is
    # nearly the greedy one, and streams. `medchat infer --num-beams 4 --max-new-tokens 256` is the script.
    generation = GenerationConfig(max_new_tokens=256, temperature=0.1, top_p=0.75, top_k=40)

    def load(self, options: LoadOptions) -> ChatModel:
        """Load a checkpoint folder in any of the published layouts, with its adapters."""
        from medchat_llama.loading import load_llama_chat

        return load_llama_chat(options)

    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would, as far as it shows without reading weights."""
        from medchat_llama.loading import prepare_llama

        prepare_llama(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the form that the adapter, else the base, was trained on: from small files alone."""
        from medchat_llama.prompts import llama_template

        return llama_template(options)

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the forms of the adapter, else of a Chinese-Alpaca; of a plain LLaMA none is known."""
        from medchat_llama.prompts import llama_trained_templates

        return llama_trained_templates(options)

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the control pieces of the vocabulary that the weights, or an adapter, bring."""
        from medchat_llama.vocabulary import llama_special_tokens

        return llama_special_tokens(options)

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it is no LLaMA."""
        from medchat_llama.inspection import inspect_llama

        return inspect_llama(path)

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """Say which published adapter the folder holds, and what is wrong with it."""
        from medchat.inference.adapters.inspect import inspect_adapter

        return inspect_adapter(path)

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a miniature random checkpoint in decapoda's layout."""
        from medchat_llama.tiny import write_tiny_llama

        sizes: dict[str, Any] = {**shape}
        write_tiny_llama(path, corpus=corpus, seed=seed, **sizes)

    @property
    def recipes(self) -> Mapping[str, SFTRecipe]:
        """All methods of fine-tuning."""
        from medchat.training.recipe import recipes_of
        from medchat_llama.recipes import LlamaFamily

        recipes = recipes_of(LlamaFamily())
        # First what BenTsao did: the method where none is named.
        return {"lora": recipes["lora"], **recipes}
