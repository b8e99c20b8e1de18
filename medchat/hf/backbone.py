"""The backbone of a current chat model of transformers, in a class of a few lines.

Cheap to import: torch, transformers and tokenizers are imported inside the methods that need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medchat.api import LoadOptions, ModelCard, SpecialTokens
from medchat.inference.causal_backbone import CausalBackbone
from medchat.training.trained_family import TrainedFamily

if TYPE_CHECKING:
    from medchat.hf.folder import FolderTemplates
    from medchat.hf.loading import TransformersLoading
    from medchat.hf.recipes import TransformersFamily
    from medchat.hf.tokenizer import HFTokenizer


class TransformersBackbone(TrainedFamily, CausalBackbone):
    """A subclass states `name`, `summary` and `model_types`; the rest has defaults.

    Loading, the kept cache, sampling, batches, `score`, adapters, quantisation and all five methods of
    fine-tuning follow from the folder: config.json, the weights, tokenizer.json, and the chat template it
    brings. A folder's own code is never run.
    """

    #: The architectures it loads, by transformers' names: `model_type` in config.json, such as "qwen2".
    model_types: ClassVar[tuple[str, ...]]
    #: The shipped template that weights without a chat template are asked in.
    plain_template: ClassVar[str] = "bare"
    #: Linears that LoRA is attached to, unless `--lora-targets` names others.
    lora_targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj")
    #: The linears whose output enters the residual: of attention, then of the feed-forward part.
    bottleneck_targets: ClassVar[tuple[str, str]] = ("o_proj", "down_proj")
    #: The method of fine-tuning where none is named.
    first_method: ClassVar[str] = "lora"

    def tokenizer_class(self) -> type[HFTokenizer]:
        """Return what reads tokenizer.json: override it for a vocabulary with habits that its files hide."""
        from medchat.hf.tokenizer import HFTokenizer

        return HFTokenizer

    def templates(self) -> FolderTemplates:
        """Return the choice between what an adapter states, the folder's chat template and `plain_template`."""
        from medchat.hf.folder import FolderTemplates

        return FolderTemplates(
            plain=self.plain_template, adapted=self.plain_template, special_tokens=self._tokens
        )

    def loading(self) -> TransformersLoading:
        """Return how folders of these architectures are loaded."""
        from medchat.hf.loading import TransformersLoading

        return TransformersLoading(self.name, self.model_types, self.tokenizer_class())

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe the folder from its headers, or return None if it is none of `model_types`."""
        from medchat.hf.folder import inspect_folder

        return inspect_folder(self.name, path, self.model_types, self.templates())

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Write a miniature random checkpoint of the first of `model_types`, as transformers saves one.

        `shape` are keys of its configuration, as transformers names them. Raises UsageError for an
        impossible shape or a folder that is not empty.
        """
        from medchat.hf.tiny import write_tiny_transformer

        sizes: dict[str, Any] = {"model_type": self.model_types[0], **shape}
        write_tiny_transformer(path, corpus=corpus, seed=seed, **sizes)

    def family(self) -> TransformersFamily:
        """Return what fine-tuning must know of these architectures."""
        from medchat.hf.recipes import TransformersFamily

        return TransformersFamily(
            self.loading(),
            self.templates(),
            lora_targets=self.lora_targets,
            bottleneck_targets=self.bottleneck_targets,
        )

    def _tokens(self, options: LoadOptions) -> SpecialTokens:
        return self.tokenizer_class().from_folder(options.model).special_tokens
