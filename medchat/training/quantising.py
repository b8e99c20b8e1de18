"""Writing a whole checkpoint with its linears quantised: what every family with a `Family` offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medchat.api import LoadOptions
from medchat.checkpoints.packed_weights import QUANTIZATION_KEY
from medchat.errors import UsageError
from medchat.inference.engine import make_grouped
from medchat.inference.quantization import conversions
from medchat.inference.quantized_file import PreparedModel, QuantizedFile
from medchat.inference.quantized_head import with_own_head
from medchat.inference.write_checkpoint import write_json
from medchat.language import say
from medchat.training.family import Family
from medchat.training.methods.full import WEIGHTS_NAME
from medchat.training.methods.method import metadata_of


def save_quantized(family: Family, options: LoadOptions, folder: Path) -> None:
    """Quantise the linears of `options.model` with a scale for every 32 weights and write the whole into `folder`.

    In little more memory than the largest matrix takes. See `Backbone.save_quantized` for what is raised.
    """
    if options.adapters:
        raise UsageError(
            say("量化时不能带适配器", "adapters cannot be quantised along"),
            say(
                "先用 medchat export merge 合并，再量化结果",
                "merge them with medchat export merge first and quantise the result",
            ),
        )
    # Torch's layers need no compiler; what is written is the same.
    prepared = family.prepare(replace(options, device="cpu", engine="torch", quantized_cache=None))
    if not prepared.placement.conversions:
        raise UsageError(
            say("这份权重已经量化过", "these weights are quantised already"),
            say("请换用未量化的检查点", "use the checkpoint that is not quantised"),
            where=str(options.model),
        )
    model = prepared.model
    QuantizedFile(_with_groups(prepared)).write(folder / WEIGHTS_NAME)
    config = _dense_dtype(family.write_small_files(options, model, folder), prepared)
    metadata = metadata_of(model, family, family.template(options), folder)
    write_json(folder / "config.json", {**config, **metadata, QUANTIZATION_KEY: options.quantize})


def _with_groups(prepared: PreparedModel) -> PreparedModel:
    """Return `prepared`, a dataclass, with its linears and its head to be quantised as the native engine has them."""
    make_grouped(prepared.model)
    placement = replace(prepared.placement, conversions=conversions(prepared.model))
    changed: Any = prepared
    found: PreparedModel = replace(changed, placement=with_own_head(placement, prepared.model))
    return found


def _dense_dtype(config: dict[str, Any], prepared: PreparedModel) -> dict[str, Any]:
    """Return `config` with the type that the dense matrices have in their files: the model has no values yet."""
    dtype = next((header.dtype for header in prepared.headers.values() if len(header.shape) > 1), "")
    return {
        key: dtype if key in ("dtype", "torch_dtype") and dtype else value for key, value in config.items()
    }
