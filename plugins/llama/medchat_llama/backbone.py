"""LLaMA-7B, Chinese-LLaMA-7B and Chinese-Alpaca-7B, with BenTsao's LoRA adapters, as a MedChat backbone.

Cheap to import: torch, transformers and sentencepiece are imported inside the methods that need them,
so `plugins list` and `models show` never pay for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.inference.causal_backbone import CausalBackbone
from medchat.plugin_kit import ChatModel, GenerationConfig, LoadOptions, ModelCard
from medchat.training.trained_family import TrainedFamily
from medchat_llama.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    from medchat.checkpoints.stated_template import TemplateChoice
    from medchat_llama.loading import LlamaLoading
    from medchat_llama.recipes import LlamaFamily


class LlamaBackbone(TrainedFamily, CausalBackbone):
    """The first LLaMA and its Chinese extensions, in every published layout, with LoRA adapters."""

    name = "llama"
    summary: Mapping[str, str] = {
        "zh": "LLaMA-7B、Chinese-Alpaca-7B 及本草（BenTsao）的 LoRA 适配器",
        "en": "LLaMA-7B and Chinese-Alpaca-7B with BenTsao's LoRA adapters",
    }
    known_weights = KNOWN_WEIGHTS
    # BenTsao's own script sets temperature 0.1, top-p 0.75, top-k 40 and four beams without sampling, which
    # is plain beam search: no output before its end. Sampling with the same numbers is nearly greedy, and
    # streams. `medchat infer --num-beams 4 --max-new-tokens 256` reproduces the script.
    generation = GenerationConfig(max_new_tokens=256, temperature=0.1, top_p=0.75, top_k=40)

    # What BenTsao did.
    first_method = "lora"

    def templates(self) -> TemplateChoice:
        """Return the templates that these weights and their adapters were trained with."""
        from medchat_llama.prompts import LLAMA_TEMPLATES

        return LLAMA_TEMPLATES

    def loading(self) -> LlamaLoading:
        """Return the loader of LLaMA's folders."""
        from medchat_llama.loading import LLAMA

        return LLAMA

    def load(self, options: LoadOptions) -> ChatModel:
        """Load a checkpoint folder in any of the published layouts, without torch if that will do."""
        from medchat.inference.quick_start import quick_start
        from medchat_llama.mapped import mapped_llama

        ordinary = partial(super().load, options)
        return quick_start(options, partial(mapped_llama, ordinary)) or ordinary()

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it is not a LLaMA."""
        from medchat_llama.inspection import inspect_llama

        return inspect_llama(path)

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a tiny random checkpoint in decapoda's layout."""
        from medchat_llama.tiny import write_tiny_llama

        sizes: dict[str, Any] = {**shape}
        write_tiny_llama(path, corpus=corpus, seed=seed, **sizes)

    def family(self) -> LlamaFamily:
        """Return what fine-tuning must know of the family."""
        from medchat_llama.recipes import LlamaFamily

        return LlamaFamily()
