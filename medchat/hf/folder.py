"""What the small files of a transformers chat model's folder say: its sizes, and the template it brings. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medchat.api import LoadOptions, ModelCard, PromptTemplate
from medchat.checkpoints.config_json import LARGEST, ConfigValues, DecoderShape
from medchat.checkpoints.headers import TensorHeader, read_headers
from medchat.checkpoints.json_object import read_json_object
from medchat.checkpoints.layout import open_checkpoint, read_config, readable_config
from medchat.checkpoints.packed_weights import with_packed_weights
from medchat.checkpoints.stated_template import TemplateChoice, with_template
from medchat.errors import CheckpointError
from medchat.hf.token_names import TOKENIZER_CONFIG
from medchat.language import say
from medchat.templates import load_template

#: Where a folder may hold its chat template: the first that does counts.
CHAT_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", TOKENIZER_CONFIG)
#: Taken where config.json states no context.
_CONTEXT_LENGTH = 2048
#: How many of anything a layer may have, besides what LARGEST knows: experts, groups.
_MANY = 2**12
_LAYER = re.compile(r"(?:^|\.)(?:h|layers|blocks|layer)\.(\d{1,6})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderShape(DecoderShape):
    """The sizes of one model, and all that its config.json states."""

    model_type: str
    stated: Mapping[str, Any] = field(repr=False)


def read_folder_shape(folder: Path, model_types: Collection[str]) -> FolderShape:
    """Read config.json.

    Raises CheckpointError: missing, damaged, an architecture that is none of `model_types`, impossible sizes.
    """
    config = read_config(folder)
    values = ConfigValues(config, folder / "config.json")
    found = config.get("model_type")
    if found not in model_types:
        raise _other_kind(found, model_types, values)
    for key, value in config.items():
        if key in LARGEST and value is not None:
            values.size(key)
        elif key.startswith(("num_", "n_")) and isinstance(value, int) and abs(value) > _MANY:
            raise values.impossible(f"{key} {value!r}")
    return FolderShape(
        model_type=str(found),
        vocab_size=values.size("vocab_size"),
        hidden_size=values.size("hidden_size", "n_embd", "d_model", "n_embed"),
        layers=values.size("num_hidden_layers", "n_layer", "num_layers"),
        heads=values.size("num_attention_heads", "n_head"),
        context_length=values.size(
            "max_position_embeddings", "n_positions", "n_ctx", "seq_length", default=_CONTEXT_LENGTH
        ),
        tied=values.switch("tie_word_embeddings", False),
        stated=config,
    )


def layers_misfit(shape: DecoderShape, headers: Mapping[str, TensorHeader]) -> str:
    """Return how the layers that are stored differ in number from those stated, "" where they agree."""
    stored = {int(found[1]) for name in headers if (found := _LAYER.search(name))}
    return "" if len(stored) == shape.layers else f"{shape.layers} layers, {len(stored)} stored"


def linears_of_a_layer(headers: Mapping[str, TensorHeader]) -> dict[str, tuple[int, int]]:
    """Return the two sizes of each matrix of the first layer by the name of its module, such as `q_proj`."""
    matrices = {
        name: header.shape
        for name, header in headers.items()
        if name.endswith(".weight")
        and len(header.shape) == 2
        and (found := _LAYER.search(name))
        and found[1] == "0"
    }
    return {name.split(".")[-2]: (sizes[0], sizes[1]) for name, sizes in matrices.items()}


def inspect_folder(
    backbone: str, path: Path, model_types: Collection[str], templates: TemplateChoice
) -> ModelCard | None:
    """Describe a folder, or return None if it holds none of `model_types`, or a config.json that cannot be read.

    Raises CheckpointError if it does and a file of it is missing or damaged.
    """
    if (readable_config(path) or {}).get("model_type") not in model_types:
        return None
    shape = read_folder_shape(path, model_types)
    checkpoint = open_checkpoint(path)
    headers = list(read_headers(checkpoint).values())
    card = ModelCard(
        backbone=backbone,
        family=shape.model_type,
        path=path,
        vocab_size=shape.vocab_size,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        parameters=sum(header.count for header in headers),
        dtypes=tuple(sorted({header.dtype for header in headers})),
        weight_bytes=sum(header.byte_count for header in headers),
        context_length=shape.context_length,
        template="",
        notes=checkpoint.notes,
    )
    card = with_packed_weights(card, headers, shape.stated)
    return with_template(card, lambda: templates.chosen(LoadOptions(path)))


class FolderTemplates(TemplateChoice):
    """What a folder's own chat template is for: its weights, and adapters over them that state no other."""

    def trained(self, options: LoadOptions) -> PromptTemplate | None:
        """Return the template that the adapter states, else that of the weights, else their chat template."""
        found = super().trained(options)
        return found or (None if options.adapters else self._of_folder(options))

    def chosen(self, options: LoadOptions) -> PromptTemplate:
        """Return the trained template, else the chat template of the folder, else `plain`."""
        return self.trained(options) or self._of_folder(options) or self.named(self.plain)

    def _of_folder(self, options: LoadOptions) -> PromptTemplate | None:
        for name in CHAT_TEMPLATE_FILES:
            path = options.model / name
            if path.is_file() and (path.suffix != ".json" or read_json_object(path).get("chat_template")):
                return load_template(path, specials=lambda: self.special_tokens(options))
        return None


def _other_kind(found: Any, model_types: Collection[str], values: ConfigValues) -> CheckpointError:
    shown = str(found or say("未注明类型的模型", "a model of no stated type"))[:60]
    known = ", ".join(sorted(model_types))
    return CheckpointError(
        say(f"这是 {shown}，不是 {known} 结构的模型", f"this is {shown}, not a model of {known}"),
        say(
            "请换用支持它的 --backbone（medchat plugins list）",
            "use a --backbone that supports it (medchat plugins list)",
        ),
        where=str(values.file),
    )
