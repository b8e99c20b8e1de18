"""Bloom-7B (bloom-7b1, bloomz-7b1) and BenTsao's adapter for it as a MedChat backbone.

Cheap to import: torch, transformers and tokenizers are imported inside the methods that need them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.inference.causal_backbone import CausalBackbone
from medchat.plugin_kit import GenerationConfig, LoadOptions, ModelCard
from medchat.training.trained_family import TrainedFamily
from medchat_bloom.weights import KNOWN_WEIGHTS, which_base

if TYPE_CHECKING:
    from medchat.checkpoints.stated_template import TemplateChoice
    from medchat_bloom.loading import BloomLoading
    from medchat_bloom.recipes import BloomFamily


class BloomBackbone(TrainedFamily, CausalBackbone):
    """Bloom with 250680 tokens in 250880 rows, plain or with LoRA adapters on the fused query_key_value."""

    name = "bloom"
    summary: Mapping[str, str] = {
        "zh": "Bloom-7B（bloomz-7b1、bloom-7b1）及 BenTsao 的医学 LoRA",
        "en": "Bloom-7B (bloomz-7b1, bloom-7b1) and BenTsao's medical LoRA",
    }
    known_weights = KNOWN_WEIGHTS
    # The original's script (docs/specs/models.md, "Templates"). It used four beams, which cannot be streamed:
    # use `--num-beams 4` for that.
    generation = GenerationConfig(max_new_tokens=256, temperature=0.1, top_p=0.75, top_k=40)

    # What BenTsao did.
    first_method = "lora"

    def templates(self) -> TemplateChoice:
        """Return the templates that these weights and their adapters were trained with."""
        from medchat_bloom.prompts import BLOOM_TEMPLATES

        return BLOOM_TEMPLATES

    def loading(self) -> BloomLoading:
        """Return the loader of Bloom's folders."""
        from medchat_bloom.loading import BLOOM

        return BLOOM

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it is not a Bloom, or is a Huozi."""
        from medchat_bloom.folder import is_bloom
        from medchat_bloom.inspection import card, is_huozi

        if not is_bloom(path) or is_huozi(path):
            return None
        return card(
            path,
            backbone=self.name,
            family="Bloom",
            generation="BLOOM / BLOOMZ",
            template=lambda: self.template(LoadOptions(path)),
            notes=(which_base(),),
        )

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a tiny random checkpoint in the published layout."""
        from medchat_bloom.tiny import write_tiny_bloom

        sizes: dict[str, Any] = {**shape}
        write_tiny_bloom(path, corpus=corpus, seed=seed, **sizes)

    def family(self) -> BloomFamily:
        """Return what fine-tuning must know of the family."""
        from medchat_bloom.recipes import BloomFamily

        return BloomFamily()
