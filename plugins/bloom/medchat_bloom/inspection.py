"""Describes folders of Bloom's architecture from headers alone, without torch, for `models show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint, read_config
from medchat.checkpoints.packed_weights import with_packed_weights
from medchat.checkpoints.published_adapters import adapters_for
from medchat.checkpoints.stated_template import with_template
from medchat.hf.token_names import declared_tokens
from medchat.hf.vocabulary import FILE_NAME, require_rows
from medchat.plugin_kit import CheckpointError, ModelCard, PromptTemplate, say
from medchat_bloom.folder import BloomShape, read_bloom_shape
from medchat_bloom.tokenizer import BEGIN_OF_UTTERANCE, BloomTokenizer

#: The 7B models: bloom-7b1, bloomz-7b1 and Huozi (docs/specs/models.md, "Bloom").
SEVEN_BILLION = (4096, 30, 32)


def is_huozi(folder: Path) -> bool:
    """Return whether a folder of this architecture is a Huozi: its small files name the chat tokens.

    If neither special_tokens_map.json nor tokenizer_config.json exists, tokenizer.json decides.
    """
    declared = declared_tokens(folder)
    if declared:
        return BEGIN_OF_UTTERANCE in declared.values()
    path = folder / FILE_NAME
    return path.is_file() and BEGIN_OF_UTTERANCE in BloomTokenizer.from_folder(folder).special_ids


def card(
    path: Path,
    *,
    backbone: str,
    family: str,
    generation: str,
    template: Callable[[], PromptTemplate],
    notes: tuple[str, ...] = (),
) -> ModelCard:
    """Describe a checkpoint folder of this architecture. Raises CheckpointError: missing or damaged files.

    `backbone` is also the base that adapters are known to fit (a key of `known_adapters.BASES`). A stored
    tied head counts once, as in the model.
    """
    shape = read_bloom_shape(path)
    checkpoint = open_checkpoint(path)
    headers = read_headers(checkpoint)
    counted = [header for name, header in headers.items() if not (shape.tied and name.startswith("lm_head."))]
    described = ModelCard(
        backbone=backbone,
        family=family,
        path=path,
        vocab_size=shape.vocab_size,
        layers=shape.layers,
        hidden_size=shape.hidden_size,
        parameters=sum(header.count for header in counted),
        dtypes=tuple(sorted({header.dtype for header in headers.values()})),
        weight_bytes=sum(header.byte_count for header in headers.values()),
        context_length=shape.context_length,
        template="",
        notes=(*checkpoint.notes, *_vocabulary_notes(path, shape), *notes),
        generation=generation,
        adapters=adapters_for(backbone) if is_seven_billion(shape) else (),
    )
    described = with_packed_weights(described, counted, read_config(path))
    return with_template(described, template)


def is_seven_billion(shape: BloomShape) -> bool:
    """Return whether the sizes are those of the 7B models."""
    return (shape.hidden_size, shape.layers, shape.heads) == SEVEN_BILLION


def _vocabulary_notes(path: Path, shape: BloomShape) -> tuple[str, ...]:
    try:
        tokenizer = read_bloom_vocabulary(path, shape)
    except CheckpointError as error:
        return (say(f"无法对话：{error.what}", f"it cannot chat: {error.what}"),)
    spare = shape.vocab_size - tokenizer.size
    if not spare:
        return ()
    return (
        say(
            f"词表 {tokenizer.size} 个词元，其余 {spare} 行没有词元，生成时从不选用",
            f"{tokenizer.size} tokens; the other {spare} rows have none and are never chosen",
        ),
    )


def read_bloom_vocabulary(folder: Path, shape: BloomShape, required: tuple[str, ...] = ()) -> BloomTokenizer:
    """Read the folder's tokenizer.

    Raises CheckpointError if it has more ids than the model has rows, or lacks one of the control tokens
    `required`, without which the family cannot chat.
    """
    tokenizer = BloomTokenizer.from_folder(folder)
    missing = [token for token in required if token not in tokenizer.special_ids]
    if missing:
        raise CheckpointError(
            say(
                f"词表里没有对话标记 {' '.join(missing)}，这不是活字 1.0",
                f"the vocabulary lacks the chat tokens {' '.join(missing)}: this is not Huozi 1.0",
            ),
            say(
                "Bloom 请用 --backbone bloom；确是活字时，请重新下载它的分词文件",
                "for a Bloom use --backbone bloom; if it is a Huozi, download its tokenizer files again",
            ),
            where=str(folder / FILE_NAME),
        )
    require_rows(tokenizer.size, shape.vocab_size, folder)
    return tokenizer
