"""What fine-tuning needs of a family whose model class is transformers' own, taken from its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medchat.api import LoadOptions, PromptTemplate, SFTOptions
from medchat.checkpoints.config_json import DecoderShape
from medchat.checkpoints.stated_template import TemplateChoice
from medchat.inference.causal_chat_model import CausalChatModel
from medchat.inference.causal_loading import CausalLoading
from medchat.inference.decode import ChatTokenizer
from medchat.inference.quantized_file import PreparedModel
from medchat.training.activation_memory import Block, ModelDims, model_dims
from medchat.training.family import Family


class CausalFamily(Family):
    """A family adds its LoRA targets, its dimensions (`shape`) and the small files of a complete checkpoint."""

    loading: CausalLoading[Any, Any]
    templates: TemplateChoice

    @property
    def own_templates(self) -> tuple[PromptTemplate, ...]:  # type: ignore[override]
        """The family's own templates."""
        return self.templates.own

    def load(self, options: LoadOptions) -> CausalChatModel:
        """Load a checkpoint and its adapters."""
        return self.loading.chat(options)

    def prepare(self, options: LoadOptions) -> PreparedModel:
        """Return the model without values, and its files."""
        return self.loading.prepare(options)

    def check(self, options: LoadOptions) -> None:
        """Check everything that can be checked without reading weights."""
        self.loading.prepare(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that chat uses."""
        return self.templates.chosen(options)

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the template that the base was trained with, else that of the family's adapters."""
        return self.templates.trained(options) or self.templates.named(self.templates.adapted)

    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        """Return the tokenizer of the weights, or of an adapter that has one."""
        found: ChatTokenizer = self.loading.tokenizer(options)
        return found

    def dims(
        self,
        options: SFTOptions,
        shape: DecoderShape,
        *,
        linears: Mapping[str, tuple[int, int]],
        inner: int,
        vocabulary: int,
        block: Block,
        parameters: int,
    ) -> ModelDims:
        """Return the dimensions; `linears` are (inputs, outputs) of each linear of a decoder layer by its name."""
        return model_dims(
            options,
            layers=shape.layers,
            hidden=shape.hidden_size,
            inner=inner,
            heads=shape.heads,
            vocabulary=vocabulary,
            block=block,
            tied=shape.tied,
            targets=self.adapted_linears(options, linears),
            parameters=parameters,
        )
