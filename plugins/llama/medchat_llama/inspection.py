"""Describes folders of LLaMA's architecture from headers alone, without torch, for `models show`."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, readable_config
from medchat.checkpoints.packed_weights import with_packed_weights
from medchat.checkpoints.published_adapters import BASES, adapters_for
from medchat.checkpoints.stated_template import with_template
from medchat.plugin_kit import CheckpointError, LoadOptions, ModelCard, say
from medchat_llama.folder import (
    HEAD,
    IGNORED,
    SEVEN_BILLION,
    LlamaShape,
    base_of,
    is_llama,
    read_llama_shape,
    stored_rows,
)
from medchat_llama.prompts import LLAMA_TEMPLATES
from medchat_llama.vocabulary import find_vocabulary, rows_note

#: The releases by their training context: nothing else in their files differs.
GENERATIONS: Mapping[int, str] = {2048: "LLaMA 1", 4096: "LLaMA 2"}


def inspect_llama(path: Path) -> ModelCard | None:
    """Describe a checkpoint folder, or return None if it is not of this family.

    Raises CheckpointError if it is of the family and a file is missing or damaged.
    """
    if not is_llama(readable_config(path) or {}):
        return None
    shape = read_llama_shape(path)
    checkpoint = open_checkpoint(path)
    headers = read_headers(checkpoint)
    rows = stored_rows(headers, shape)
    counted = [
        header
        for name, header in headers.items()
        if not any(fnmatchcase(name, pattern) for pattern in IGNORED) and not (shape.tied and name == HEAD)
    ]
    card = ModelCard(
        backbone="llama",
        family=_family(shape, rows),
        path=path,
        vocab_size=rows,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        parameters=sum(header.count for header in counted),
        dtypes=tuple(sorted({header.dtype for header in counted})),
        weight_bytes=sum(header.byte_count for header in counted),
        context_length=shape.context_length,
        template="",
        notes=(*checkpoint.notes, *rows_note(shape, rows, path), *_notes(path, rows)),
        generation=GENERATIONS.get(shape.context_length, ""),
        adapters=adapters_for(base_of(rows)) if _is_seven_billion(shape) else (),
    )
    card = with_packed_weights(card, counted, readable_config(path) or {})
    return with_template(card, lambda: LLAMA_TEMPLATES.chosen(LoadOptions(path)))


def _is_seven_billion(shape: LlamaShape) -> bool:
    return (shape.hidden_size, shape.layers, shape.heads) == SEVEN_BILLION


def _family(shape: LlamaShape, rows: int) -> str:
    base = base_of(rows)
    if _is_seven_billion(shape):
        return BASES.get(base, "LLaMA-7B")
    return BASES.get(base, "LLaMA").removesuffix("-7B")


def _notes(path: Path, rows: int) -> tuple[str, ...]:
    try:
        find_vocabulary(path, rows)
    except CheckpointError as error:
        return (say(f"无法对话：{error.what}", f"it cannot chat: {error.what}"),)
    return ()
