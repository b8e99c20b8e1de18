"""Loading of LLaMA checkpoint folders, and of adapters with a vocabulary of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from medchat.checkpoints.adapter_folder import (
    Adapter,
    base_notes,
    open_adapter,
    with_vocabulary,
    without_vocabulary,
)
from medchat.checkpoints.headers import TensorHeader
from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.inference.causal_loading import CausalLoading, CausalModel, Vocabulary
from medchat.inference.fused_decoder import DecoderParts
from medchat.plugin_kit import CheckpointError, LoadOptions, say
from medchat_llama.folder import (
    EMBEDDING,
    HEAD,
    IGNORED,
    LlamaShape,
    base_of,
    llama_misfit,
    read_llama_shape,
    stored_rows,
)
from medchat_llama.fused import llama_parts
from medchat_llama.tokenizer import LlamaTokenizer
from medchat_llama.vocabulary import find_vocabulary, rows_note


class LlamaLoading(CausalLoading[LlamaShape, LlamaTokenizer]):
    """The loader of the first LLaMA and its Chinese extensions."""

    name = "llama"
    model_class = LlamaForCausalLM
    ignored = IGNORED

    def read_shape(self, folder: Path) -> LlamaShape:
        """Read config.json."""
        return read_llama_shape(folder)

    def misfit(self, shape: LlamaShape, headers: Mapping[str, TensorHeader]) -> str:
        """Compare layers and width with the tensors."""
        return llama_misfit(shape, headers)

    def open_vocabulary(
        self, options: LoadOptions, shape: LlamaShape, headers: Mapping[str, TensorHeader]
    ) -> Vocabulary[LlamaTokenizer]:
        """Open the adapters; one may have a vocabulary, which makes the weights another published base."""
        adapters = _in_order(options)
        grown = next(iter(with_vocabulary(adapters)), None)
        stored = stored_rows(headers, shape)
        rows = _rows_of(grown) if grown else stored
        tokenizer = find_vocabulary(options.model, rows, grown.folder if grown else None)
        notes = [*rows_note(shape, stored, options.model)]
        for adapter in adapters:
            notes += base_notes(adapter, base_of(stored if adapter is grown else rows), options.model)
        saved = tuple(grown.saved) if grown else ()
        return Vocabulary(tokenizer, rows, base_of(rows), tuple(adapters), tuple(notes), saved)

    def library_config(self, shape: LlamaShape, vocabulary: Vocabulary[LlamaTokenizer]) -> LlamaConfig:
        """Return the configuration, with the vocabulary's own ids."""
        tokenizer = vocabulary.tokenizer
        return LlamaConfig(
            vocab_size=vocabulary.rows,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.inner_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=shape.context_length,
            rms_norm_eps=shape.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
            tie_word_embeddings=shape.tied,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            architectures=["LlamaForCausalLM"],
        )

    def stop_ids(self, loaded: CausalModel[LlamaShape, LlamaTokenizer]) -> Collection[int]:
        """Return `<unk>` for an adapter.

        BenTsao's adapters were trained with a tokenizer whose special ids were all 0, and end answers with 0.
        `<unk>` has no text, so nothing is lost.
        """
        return {loaded.tokenizer.id_of("<unk>")} if without_vocabulary(loaded.adapters) else ()

    def decoder_parts(self, model: PreTrainedModel) -> DecoderParts | None:
        """Say what it consists of, where nothing was added to it."""
        return llama_parts(model)


LLAMA = LlamaLoading()


def _in_order(options: LoadOptions) -> list[Adapter]:
    """Open the adapters; the one with a vocabulary comes first, because the others were trained on top of it."""
    adapters = [open_adapter(folder) for folder in options.adapters]
    grown = with_vocabulary(adapters)
    if len(grown) > 1:
        raise CheckpointError(
            say("只能有一个适配器自带词表", "only one adapter can bring a vocabulary of its own"),
            say("请只保留一个这样的 --adapter", "keep one such --adapter"),
            where=", ".join(str(adapter.folder) for adapter in grown),
        )
    for adapter in grown:
        if set(adapter.saved) != {EMBEDDING, HEAD}:
            raise CheckpointError(
                say(
                    f"不支持这种适配器：modules_to_save 应为词嵌入和输出层，实际是 {'、'.join(adapter.saved)}",
                    "this kind of adapter is not supported: it saves not embedding and head but "
                    f"{', '.join(adapter.saved)}",
                ),
                say(
                    "请先用训练它的工具合并，再用 --model 加载",
                    "merge it with its own tool and pass that as --model",
                ),
                where=str(adapter.folder),
            )
    return [*grown, *without_vocabulary(adapters)]


def _rows_of(adapter: LoraAdapter) -> int:
    shape = adapter.saved[EMBEDDING].shape
    return shape[0] if shape else 0
