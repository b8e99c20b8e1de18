"""ChatGLM-6B (first generation) and its medical fine-tunes as a MedChat backbone.

Cheap to import: torch, transformers and sentencepiece are imported inside the methods that need them,
so `plugins list` and `models show` never pay for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.plugin_kit import (
    AdapterCard,
    ChatModel,
    GenerationConfig,
    LoadOptions,
    ModelCard,
    Option,
    PromptTemplate,
    SpecialTokens,
)
from medchat.training.trained_family import TrainedFamily
from medchat_chatglm.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    from medchat.training.methods import Method
    from medchat_chatglm.recipes import ChatGLMFamily


class ChatGLMBackbone(TrainedFamily):
    """ChatGLM-6B v1: both id generations, the Med fine-tunes, int8/int4 checkpoints, P-tuning prefixes."""

    name = "chatglm"
    summary: Mapping[str, str] = {
        "zh": "ChatGLM-6B 第一代及其医学微调（ChatGLM-6B-Med）",
        "en": "First-generation ChatGLM-6B and its medical fine-tunes (ChatGLM-6B-Med)",
    }
    known_weights = KNOWN_WEIGHTS
    # The published demo's defaults (docs/specs/models.md, "ChatGLM-6B prompts and generation").
    generation = GenerationConfig(top_p=0.7, temperature=0.95)
    load_keys: Mapping[str, Option | tuple[str, ...]] = {
        "rule": Option(
            choices=("med", "med_demo", "upstream_v0", "v11"),
            summary={"zh": "位置规则", "en": "position rule"},
        )
    }
    not_applicable: Mapping[str, str] = {
        "test_a_kept_cache_answers_as_a_fresh_one": "its prompt attends in both directions: nothing of it can be kept"
    }

    def load(self, options: LoadOptions) -> ChatModel:
        """Load a checkpoint folder in any of the published layouts, without torch if that will do."""
        from medchat.inference.quick_start import quick_start
        from medchat_chatglm.mapped import mapped_chatglm

        def ordinary() -> ChatModel:
            from medchat_chatglm.chat_model import load_chatglm_chat

            return load_chatglm_chat(options)

        return quick_start(options, partial(mapped_chatglm, ordinary)) or ordinary()

    def exchange_adapters(self, model: ChatModel, options: LoadOptions) -> ChatModel | None:
        """Exchange adapters in place, unless one is a prefix or requires another rule."""
        from medchat_chatglm.chat_model import exchange_chatglm_adapters

        return exchange_chatglm_adapters(model, options)

    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would refuse, as far as can be checked without reading weights."""
        from medchat_chatglm.loading import check_checkpoint

        check_checkpoint(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that the last adapter or the weights were trained with, from small files only."""
        from medchat_chatglm.prompts import rule_template

        return rule_template(options, lambda: self.special_tokens(options))

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the template stated in config.json, or implied by generation and rule."""
        from medchat_chatglm.prompts import chatglm_trained_templates

        return chatglm_trained_templates(options)

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the control pieces of the weights' vocabulary."""
        from medchat_chatglm.tokenizer import chatglm_special_tokens

        return chatglm_special_tokens(options.model)

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it is not a first-generation ChatGLM."""
        from medchat_chatglm.inspection import inspect_chatglm

        return inspect_chatglm(path)

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """Return which published adapter the folder holds, and what is wrong with it."""
        from medchat.checkpoints.adapter_folder import CHATGLM_PREFIX, kind_of
        from medchat.checkpoints.lora_folder import is_lora_folder
        from medchat.inference.adapters.inspect import inspect_adapter

        if is_lora_folder(path) and kind_of(path) == CHATGLM_PREFIX:
            from medchat_chatglm.adapters import inspect_prefix

            return inspect_prefix(path)
        return inspect_adapter(path)

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a tiny random checkpoint in the published layout."""
        from medchat_chatglm.tiny import write_tiny_chatglm

        sizes: dict[str, Any] = {**shape}
        write_tiny_chatglm(path, corpus=corpus, seed=seed, **sizes)

    def family(self) -> ChatGLMFamily:
        """Return what fine-tuning must know of the family."""
        from medchat_chatglm.recipes import ChatGLMFamily

        return ChatGLMFamily()

    def own_methods(self) -> Sequence[Method]:
        """P-tuning with the model's own prefix."""
        from medchat_chatglm.recipes import PTuningMethod

        return [PTuningMethod()]
