"""How a chat model of transformers is fine-tuned: what the shared recipes must know of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from medchat.api import Control, LoadOptions, PromptTemplate, SFTOptions, Text, Turn
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.hf.folder import CHAT_TEMPLATE_FILES, FolderShape, FolderTemplates, linears_of_a_layer
from medchat.hf.loading import TransformersLoading
from medchat.hf.token_names import DECLARING_FILES, GENERATION_CONFIG
from medchat.hf.vocabulary import FILE_NAME
from medchat.inference.decode import ChatTokenizer
from medchat.inference.quantization import quantisable_linears
from medchat.training.activation_memory import ModelDims
from medchat.training.causal_family import CausalFamily
from medchat.training.family import base_options, copy_files
from medchat.training.methods.qlora import nothing_to_pack

_SMALL_FILES = tuple(
    dict.fromkeys((FILE_NAME, *DECLARING_FILES, *CHAT_TEMPLATE_FILES, GENERATION_CONFIG, "added_tokens.json"))
)

#: So many rows of a table of positions stand for none.
_ROWS_MORE = 2


class TransformersFamily(CausalFamily):
    """What a `TransformersBackbone` says, as the recipes ask for it."""

    def __init__(
        self,
        loading: TransformersLoading,
        templates: FolderTemplates,
        *,
        lora_targets: tuple[str, ...],
        bottleneck_targets: tuple[str, str],
    ) -> None:
        """The targets are those of `Family`."""
        self.name, self.loading, self.templates = loading.name, loading, templates
        self.lora_targets, self.bottleneck_targets = lora_targets, bottleneck_targets

    def training_template(self, options: LoadOptions, kind: str) -> PromptTemplate:
        """Return the template that chat uses: the one that the weights were made for."""
        return self.templates.chosen(options)

    def end_id(self, tokenizer: ChatTokenizer, template: PromptTemplate) -> int:
        """Return the end that the template writes behind an answer, else that of a text: chat stops on both."""
        answer = Text(token_hex(8))
        try:
            segments = template.render((Turn("?", answer.text),), "?")
            behind = segments[segments.index(answer) + 1]
        except (ValueError, IndexError):  # an answer joined to other text, or the last segment
            return tokenizer.eos_token_id
        end = tokenizer.special_ids.get(behind.token) if isinstance(behind, Control) else None
        return end if end in tokenizer.stop_ids and end is not None else tokenizer.eos_token_id

    def shape(self, options: SFTOptions) -> ModelDims:
        """Return the measures that config.json and the headers state: an estimate's, as some architectures differ."""
        found: FolderShape = self.loading.read_shape(options.model)
        headers = read_headers(open_checkpoint(options.model))
        linears = linears_of_a_layer(headers)
        rows = found.vocab_size
        widest = max((max(sizes) for sizes in linears.values()), default=4 * found.hidden_size)
        inner = next(
            (found.stated[key] for key in ("intermediate_size", "n_inner") if found.stated.get(key)), widest
        )
        dims = self.dims(
            options,
            found,
            linears=linears,
            inner=inner,
            vocabulary=rows,
            block="gated" if any("gate" in name for name in linears) else "plain",
            parameters=sum(header.count for header in headers.values()),
        )
        return dims if self._quantisable(options) else replace(dims, packed=0)

    def most_positions(self, options: SFTOptions) -> int | None:
        """Return the context that config.json states where the model has a table of so many positions, else None."""
        stated: FolderShape = self.loading.read_shape(options.model)
        positions = stated.context_length
        if (
            options.max_length + options.pre_seq_len <= positions
        ):  # nothing can be longer: no need to build it
            return positions
        model = self.loading.unfilled(base_options(options))
        return positions if _has_position_table(model, positions) else None

    def refuse(self, options: SFTOptions) -> None:
        """Raise UsageError for QLoRA over an architecture whose layers have no linears to pack (GPT-2)."""
        if options.method == "qlora" and not self._quantisable(options):
            raise nothing_to_pack()

    def _quantisable(self, options: SFTOptions) -> bool:
        return bool(quantisable_linears(self.loading.unfilled(base_options(options))))

    def write_small_files(self, options: LoadOptions, model: PreTrainedModel, folder: Path) -> dict[str, Any]:
        """Copy the vocabulary, its small files and the chat template; what is trained changes none of them."""
        copy_files(options.model, folder, _SMALL_FILES)
        stated = {key: value for key, value in read_config(options.model).items() if key != "torch_dtype"}
        return {**stated, "dtype": str(model.dtype).removeprefix("torch.")}


def _has_position_table(model: PreTrainedModel, positions: int) -> bool:
    """Whether the model looks positions up, in an embedding or in a buffer that was computed once.

    Some have a few rows more than positions (OPT).
    """
    words = model.get_input_embeddings()
    sizes = {
        module.num_embeddings
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module is not words
    }
    sizes |= {size for buffer in model.buffers() if buffer.dim() > 1 for size in buffer.shape}
    return any(positions <= size <= positions + _ROWS_MORE for size in sizes)
