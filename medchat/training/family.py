"""What a model family implements so that every fine-tuning method works on it.

A built-in backbone subclasses `Family` (for a plugin `medchat.hf` does so) and returns
`recipes_of(MyFamily())` as its recipes. Most methods call what the backbone's chat uses already, so that
prompts, masks and loading in training are those of chat.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from medchat.api import LoadOptions, PromptTemplate, Segment, SFTOptions
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.checkpoints.lora_targets import ALL_LINEAR
from medchat.errors import UsageError
from medchat.inference.chat_model import TokenChatModel
from medchat.inference.decode import ChatTokenizer
from medchat.inference.quantization import not_quantisable
from medchat.inference.quantized_file import PreparedModel
from medchat.language import say
from medchat.training.activation_memory import ModelDims
from medchat.training.data_loader import CausalCollator, Collator


class Family(ABC):
    """One model family. The calls that take `LoadOptions` are those of its `Backbone`."""

    #: Its backbone's name.
    name: str
    #: Linear layers that LoRA is attached to, unless `--lora-targets` names others; ALL_LINEAR: all but the head.
    lora_targets: tuple[str, ...]
    #: The linear layers whose output is added to the residual stream: of attention, then of the feed-forward
    #: part. Houlsby's bottlenecks follow them.
    bottleneck_targets: tuple[str, str]
    #: What `--collator` takes; the first is the default.
    collators: ClassVar[tuple[str, ...]] = ("default",)
    #: The family's own templates that a trained folder may name; not the shipped ones.
    own_templates: ClassVar[tuple[PromptTemplate, ...]] = ()
    #: The methods it does not offer.
    without: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def load(self, options: LoadOptions) -> TokenChatModel:
        """Load a checkpoint and its adapters, as chat does. Raises CheckpointError, MemoryShortageError."""

    def prepare(self, options: LoadOptions) -> PreparedModel:
        """Return what is known before the first weight is read. Raises what `load` raises; by default UsageError."""
        raise not_quantisable(say("换用别的模型", "use another model"))

    @abstractmethod
    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would refuse, as far as can be checked without reading weights."""

    @abstractmethod
    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that chat uses for these weights and adapters. Reads small files only."""

    @abstractmethod
    def tokenizer(self, options: LoadOptions) -> ChatTokenizer:
        """Return the tokenizer that `load` would use. Reads no weights."""

    @abstractmethod
    def write_small_files(self, options: LoadOptions, model: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the files of a complete checkpoint other than its weights; return the content of config.json.

        config.json itself is written later, by the recipe, which adds its keys. Special ids must be correct
        even if the files that training started from were wrong.
        """

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the template to train with if none was chosen. `kind`: of the result, "model" or "adapter"."""
        return self.template(options)

    def end_id(self, tokenizer: ChatTokenizer, template: PromptTemplate) -> int:
        """Return the id that ends a training answer in this template. Chat must stop on it."""
        return tokenizer.eos_token_id

    def collator(
        self, name: str, model: nn.Module, tokenizer: ChatTokenizer, options: SFTOptions
    ) -> Collator:
        """Return one of `collators` for a loaded model. May set what it needs in the model's configuration."""
        return CausalCollator(tokenizer.pad_token_id)

    def preview_collator(self, name: str, options: LoadOptions) -> Collator | None:
        """Return a collator for the preview if it labels other tokens than the answer and its end; else None.

        No weights are loaded yet.
        """
        return None

    def trained_facts(self, model: nn.Module) -> Mapping[str, str]:
        """Return metadata for the result's configuration file that chat needs (ChatGLM: its position rule)."""
        return {}

    def shape(self, options: SFTOptions) -> ModelDims | None:
        """Return the model's dimensions for a memory estimate, from small files and headers; None: unknown."""
        return None

    def most_positions(self, options: SFTOptions) -> int | None:
        """Return how many tokens a text can have at most, from small files and headers; None: no limit is known.

        Weights with learned positions have no more than these; rotary positions and ALiBi go on.
        """
        return None

    def adapted_linears(
        self, options: SFTOptions, linears: Mapping[str, tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Return the sizes of those of a layer's `linears` that LoRA is attached to: an estimate's."""
        targets = options.lora_targets or self.lora_targets
        return [sizes for name, sizes in linears.items() if name in targets or ALL_LINEAR in targets]

    def trial_prompt(self, model: nn.Module) -> Sequence[int]:
        """Return ids that are valid for every model of the family, for testing an adapter; () for any ids."""
        return ()

    def resolved(self, options: SFTOptions) -> Mapping[str, str]:
        """Return the family's own settings, resolved for these options. Reads small files only."""
        return {}

    def refuse(self, options: SFTOptions) -> None:
        """Raise UsageError for weights that the method in `options` cannot train. Reads small files only."""
        return


@dataclass(frozen=True, slots=True)
class FamilyEncoder:
    """Prompts and answers as ids, with the same tokenizer calls as chat."""

    tokenizer: ChatTokenizer
    end_id: int

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return a prompt's ids, special ones included."""
        return self.tokenizer.build_prompt(segments)

    def encode_answer(self, answer: str) -> list[int]:
        """Return an answer's ids and the end token after it."""
        return [*self.tokenizer.encode(answer), self.end_id]


def base_options(options: SFTOptions, *, device: str = "", dtype: str = "float32") -> LoadOptions:
    """Return the options to load the base that training starts from."""
    return LoadOptions(
        options.model,
        options.adapters,
        device=device or options.device,
        dtype=dtype,
        engine="torch",  # the native engine computes no gradients
        extra=dict(options.extra),
    )


def refuse_quantised(options: SFTOptions, stated: object) -> None:
    """Raise UsageError if weights are quantised, as `stated` in config.json says, and would be trained or packed."""
    if stated and options.method in ("full", "qlora"):
        raise UsageError(
            say(
                f"量化后的权重不能用于 --method {options.method}",
                f"quantised weights cannot be used with --method {options.method}",
            ),
            say(
                "请换用未量化的检查点，或用 --method lora、adapter、ptuning",
                "use the checkpoint that is not quantised, or --method lora, adapter or ptuning",
            ),
            where=str(options.model),
        )


def stored_parameters(folder: Path, ignore: Callable[[str], bool]) -> int:
    """Return the number of elements of a checkpoint's tensors, from the headers, without names in `ignore`."""
    headers = read_headers(open_checkpoint(folder))
    return sum(header.count for name, header in headers.items() if not ignore(name))


def copy_files(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy those of the files that exist."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
