"""The backbone of a net of one's own: a torch module, its vocabulary, and nothing of transformers.

Cheap to import: torch is imported inside the methods that need it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medchat.api import (
    Capabilities,
    ChatModel,
    LoadOptions,
    ModelCard,
    PromptTemplate,
    Segment,
    SpecialTokens,
)
from medchat.checkpoints.config_json import ConfigValues
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config, readable_config
from medchat.checkpoints.stated_template import TemplateChoice, with_template
from medchat.inference.detokenizer import StreamText
from medchat.inference.prompt_ids import segment_ids, special_id
from medchat.training.trained_family import TrainedFamily

if TYPE_CHECKING:
    from torch import nn

    from medchat.hf.net_loading import NetFamily, NetLoading
    from medchat.hf.tokenizer import HFTokenizer


class NetTokenizer(ABC):
    """A vocabulary of one's own. A subclass sets the three attributes and turns text into ids and back."""

    #: The ids of the special tokens by name. No text may become one of them.
    special_ids: Mapping[str, int]
    #: The id that ends an answer, which training adds to each; also what fills shorter rows.
    eos_token_id: int
    #: How many ids there are, special ones included; rows of the net from there on are never chosen.
    size: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of any text, none of them special."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, of special ones none; bytes of a character that is not whole yet as U+FFFD."""

    @property
    def pad_token_id(self) -> int:
        """Return the id that fills shorter rows."""
        return self.eos_token_id

    @property
    def stop_ids(self) -> frozenset[int]:
        """Return the ids that end an answer."""
        return frozenset({self.eos_token_id})

    def build_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a prompt. Raises UsageError for a special token that the vocabulary lacks."""
        return segment_ids(segments, self.encode, lambda token: special_id(token, self.special_ids))

    def stream(self) -> StreamText:
        """Return a decoder for an answer that comes id by id."""
        return StreamText(self.decode)


class NetBackbone(TrainedFamily):
    """A subclass states `name` and `summary`, and writes `net`, `tokenizer` and `tiny`; the rest has defaults.

    A model's folder holds config.json (`model_type` is the backbone's name, `max_position_embeddings` its
    context, `vocab_size` the rows of its embedding, and what `net` wants), the weights as safetensors or
    .bin, and `small_files`. Sampling, `score`, `inspect`, LoRA adapters and fine-tuning (`full`, `lora`) follow.
    Each token is computed from the whole text again, and a batch is answered one prompt after the other.
    """

    #: The shipped template that weights are asked in that were not fine-tuned here.
    plain_template: ClassVar[str] = "bare"
    #: Files beside weights and config.json, such as the vocabulary: a fine-tuned folder gets copies.
    small_files: ClassVar[tuple[str, ...]] = ()
    #: Linears that LoRA is attached to, unless `--lora-targets` names others: the last parts of their names, or
    #: "all-linear" for every `torch.nn.Linear` that shares its weight with no other module.
    lora_targets: ClassVar[tuple[str, ...]] = ("all-linear",)
    capabilities = Capabilities(beams=False, batch=False, quantize=())
    not_applicable: Mapping[str, str] = {
        "test_a_kept_cache_answers_as_a_fresh_one": "each token is computed from the whole text anew"
    }

    @abstractmethod
    def net(self, config: Mapping[str, Any]) -> nn.Module:
        """Return the module of the sizes in config.json, with any weights.

        Built on torch's meta device too, to look at names and shapes before weights are read; what it raises
        for a value is shown as a fault of config.json. Called with ids [B, T], it returns the logits [B, T, V]
        of what follows each. No position may see one behind it: rows are padded on the right.
        """

    @abstractmethod
    def tokenizer(self, folder: Path) -> NetTokenizer | HFTokenizer:
        """Return the vocabulary in the folder. Raises CheckpointError."""

    def write_random(self, path: Path, config: Mapping[str, int], seed: int) -> None:
        """Write config.json and the weights that `net` begins with; the same seed gives the same. For `tiny`.

        Raises UsageError for a folder that is not empty.
        """
        self.loading().write_random(path, config, seed)

    def loading(self) -> NetLoading:
        """Return how folders of this backbone are loaded. Imports torch."""
        from medchat.hf.net_loading import NetLoading

        return NetLoading(self.name, self.net, self.tokenizer, self.small_files, self._templates())

    def load(self, options: LoadOptions) -> ChatModel:
        """Load a folder. Raises CheckpointError, MemoryShortageError, UsageError."""
        return self.loading().chat(options)

    def check(self, options: LoadOptions) -> None:
        """Refuse what `load` would, as far as it shows without reading weights."""
        self.loading().prepare(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template that fine-tuning here stated, else `plain_template`."""
        return self._templates().chosen(options)

    def trained_templates(self, options: LoadOptions) -> tuple[str, ...]:
        """Return the name of the template that fine-tuning here stated."""
        return self._templates().known_names(options)

    def special_tokens(self, options: LoadOptions) -> SpecialTokens:
        """Return those of the vocabulary."""
        return SpecialTokens(tuple(self.tokenizer(options.model).special_ids))

    def inspect(self, path: Path) -> ModelCard | None:
        """Describe a folder whose config.json names this backbone. Raises CheckpointError for a damaged one."""
        if (readable_config(path) or {}).get("model_type") != self.name:
            return None
        stated = ConfigValues(read_config(path), path / "config.json")
        headers = list(read_headers(open_checkpoint(path)).values())
        card = ModelCard(
            backbone=self.name,
            family=self.name,
            path=path,
            parameters=sum(header.count for header in headers),
            dtypes=tuple(sorted({header.dtype for header in headers})),
            weight_bytes=sum(header.byte_count for header in headers),
            vocab_size=stated.size("vocab_size"),
            context_length=stated.size("max_position_embeddings"),
        )
        return with_template(card, lambda: self.template(LoadOptions(path)))

    def family(self) -> NetFamily:
        """Return what fine-tuning must know of the net."""
        from medchat.hf.net_loading import NetFamily

        return NetFamily(self.loading(), self.lora_targets)

    def _templates(self) -> TemplateChoice:
        return TemplateChoice(self.plain_template, self.plain_template, self.special_tokens)
