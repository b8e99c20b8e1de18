"""Huozi 1.0 (HIT-SCIR/huozi-7b-sft), plain or with BenTsao's LoRA, as a MedChat backbone.

Bloom's architecture with chat tokens. Cheap to import: torch, transformers and tokenizers are imported
inside the methods that need them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.inference.causal_backbone import CausalBackbone
from medchat.plugin_kit import GenerationConfig, LoadOptions, ModelCard
from medchat.training.trained_family import TrainedFamily
from medchat_bloom.huozi.prompts import CHAT_TOKENS
from medchat_bloom.huozi.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    from medchat.checkpoints.stated_template import TemplateChoice
    from medchat_bloom.huozi.loading import HuoziLoading
    from medchat_bloom.huozi.recipes import HuoziFamily


class HuoziBackbone(TrainedFamily, CausalBackbone):
    """Huozi 1.0: its own chat template when plain, `bloom_deploy` with an adapter; stops on both end tokens."""

    name = "huozi"
    summary: Mapping[str, str] = {
        "zh": "活字 1.0（Huozi）及 BenTsao 的医学 LoRA",
        "en": "Huozi 1.0 and BenTsao's medical LoRA",
    }
    known_weights = KNOWN_WEIGHTS
    # The published demo's defaults (docs/specs/models.md, "Huozi").
    generation = GenerationConfig(
        max_new_tokens=512, temperature=0.5, top_k=50, top_p=0.95, repetition_penalty=1.03
    )

    # What BenTsao did.
    first_method = "lora"

    def templates(self) -> TemplateChoice:
        """Return the templates that these weights and their adapters were trained with."""
        from medchat_bloom.huozi.template_choice import HUOZI_TEMPLATES

        return HUOZI_TEMPLATES

    def loading(self) -> HuoziLoading:
        """Return the loader of Huozi's folders."""
        from medchat_bloom.huozi.loading import HUOZI_LOADING

        return HUOZI_LOADING

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it lacks Huozi's chat tokens."""
        from medchat_bloom.folder import is_bloom
        from medchat_bloom.inspection import card, is_huozi

        if not is_bloom(path) or not is_huozi(path):
            return None
        return card(
            path,
            backbone=self.name,
            family="Huozi",
            generation=_generation(path),
            template=lambda: self.template(LoadOptions(path)),
        )

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a tiny random checkpoint in the published layout: one file of weights, chat tokens."""
        from medchat_bloom.tiny import write_tiny_bloom

        choices: dict[str, Any] = {"layout": "bin", "chat_tokens": (*CHAT_TOKENS, "<|endoftext|>"), **shape}
        write_tiny_bloom(path, corpus=corpus, seed=seed, **choices)

    def family(self) -> HuoziFamily:
        """Return what fine-tuning must know of the family."""
        from medchat_bloom.huozi.recipes import HuoziFamily

        return HuoziFamily()


def _generation(path: Path) -> str:
    """Return the release: 2.0 pads with the end token (docs/specs/models.md, "Huozi")."""
    from medchat.checkpoints.layout import read_config

    return "2.0 (RLHF)" if read_config(path).get("pad_token_id") == 2 else "1.0"
