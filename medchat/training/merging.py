"""Writing a whole checkpoint with adapters merged into its weights: what every family with a `Family` offers.

The folder loads by its path alone, here and in plain transformers where the architecture is the library's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medchat.api import LoadOptions
from medchat.checkpoints.adapter_folder import open_adapter
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.layout import open_checkpoint
from medchat.checkpoints.lora_folder import LoraAdapter
from medchat.errors import MedchatError, UsageError
from medchat.inference.adapters.lora_merging import merge_all, over_shared_weights
from medchat.inference.engine import quantization_of
from medchat.inference.net_chat_model import takes_ids_alone
from medchat.inference.write_checkpoint import save_and_compare, write_json
from medchat.language import say
from medchat.training.family import Family
from medchat.training.methods.full import WEIGHTS_NAME, shared_with_others, weights_of
from medchat.training.methods.method import metadata_of

_HALF = {"float16", "bfloat16"}


def save_merged(family: Family, options: LoadOptions, folder: Path, dtype: str) -> None:
    """Load what `options` name, merge its adapters and write the whole into `folder`, in `dtype`.

    Each changed weight is summed in float32 and rounded once. See `Backbone.save_merged` for what is raised.
    """
    for adapter in options.adapters:
        if not isinstance(open_adapter(adapter), LoraAdapter):
            raise UsageError(
                say("只有 LoRA 适配器可以并入权重", "only LoRA adapters can be merged into weights"),
                say("这种适配器请用 --adapter 加载", "load one of this kind with --adapter"),
                where=str(adapter),
            )
    target: torch.dtype = getattr(torch, dtype)
    loading = replace(options, device="cpu", quantize="none", engine="torch")
    loaded = family.load(replace(loading, dtype=_loaded_dtype(options.model, dtype)))
    model: Any = loaded.model
    if takes_ids_alone(model) and (shared := over_shared_weights(model)):
        raise shared_with_others(shared)  # transformers' models have a setting that parts the two
    tied = not takes_ids_alone(model) and bool(getattr(model.config, "tie_word_embeddings", False))
    if quantization_of(model) != "none" or not merge_all(model, target):
        raise UsageError(
            say("量化后的权重不能合并", "quantised weights cannot be merged into"),
            say("请换用未量化的检查点", "use the checkpoint that is not quantised"),
            where=str(options.model),
        )
    model.to(target)
    if tied and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False  # an adapter changed one of the two
    weights = weights_of(model)
    _require_finite(weights, dtype)
    if not save_and_compare(weights, folder / WEIGHTS_NAME):
        raise MedchatError(
            say("写到磁盘上的权重与合并结果不一致", "the weights on the disk differ from the merged ones"),
            say("请检查磁盘后重新导出", "check the disk and export again"),
            where=str(folder / WEIGHTS_NAME),
        )
    config = family.write_small_files(options, model, folder)
    metadata = metadata_of(model, family, family.template(options), folder)
    write_json(folder / "config.json", {**config, **metadata})
    loaded.close()


def _loaded_dtype(folder: Path, dtype: str) -> str:
    """Return what to load in: as the matrices are stored, which loses nothing of them and takes no more room."""
    matrices = {
        header.dtype for header in read_headers(open_checkpoint(folder)).values() if len(header.shape) > 1
    }
    same = len(matrices) == 1 and matrices <= _HALF and dtype != "float32"
    return matrices.pop() if same else "float32"


def _require_finite(weights: dict[str, Tensor], dtype: str) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                say(
                    f"合并后的权重 {name} 超出 {dtype} 的范围",
                    f"the merged weight {name} is out of range in {dtype}",
                ),
                "--dtype bfloat16 / float32",
            )
