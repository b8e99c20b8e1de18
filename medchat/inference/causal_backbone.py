"""The backbone of a family that transformers computes: LLaMA, Bloom, Huozi and their kin.

Cheap to import: torch, transformers and the tokenizers' libraries are imported inside the methods that
need them, so `plugins list` and `models show` never pay for them. A family's own module must keep to that.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchat.api import AdapterCard, Backbone, ChatModel, LoadOptions, PromptTemplate, SpecialTokens

if TYPE_CHECKING:
    from medchat.checkpoints.stated_template import TemplateChoice
    from medchat.inference.causal_loading import CausalLoading


class CausalBackbone(Backbone):
    """A family says how its folders are loaded and which templates they were trained on.

    It adds `inspect`, `tiny` and `recipes`.
    """

    @abstractmethod
    def templates(self) -> TemplateChoice:
        """Return which templates the family's weights were trained on. Imports no torch."""

    @abstractmethod
    def loading(self) -> CausalLoading[Any, Any]:
        """Return how folders of this family are loaded. Imports torch: in here, and not with the module."""

    def load(self, options: LoadOptions) -> ChatModel:
        """Load a checkpoint folder in any of the published layouts, with its adapters."""
        return self.loading().chat(options)

    def exchange_adapters(self, model: ChatModel, options: LoadOptions) -> ChatModel | None:
        """Exchange them in place, where none of them brings a vocabulary."""
        return self.loading().exchange_adapters(model, options)

    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would, as far as it shows without reading weights."""
        self.loading().prepare(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that the adapter, else the base, was trained on: from small files alone."""
        return self.templates().chosen(options)

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the names of the templates that these weights are known to have been trained on."""
        return self.templates().known_names(options)

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return the control tokens of the vocabulary that the weights, or an adapter, bring."""
        return self.templates().special_tokens(options)

    def inspect_adapter(self, path: Path) -> AdapterCard | None:
        """Say which published adapter the folder holds, and what is wrong with it."""
        from medchat.inference.adapters.inspect import inspect_adapter

        return inspect_adapter(path)
