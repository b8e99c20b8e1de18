"""Loading weights that were quantised at an earlier start, or keeping those of this one for the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from medchat.api import LoadOptions
from medchat.checkpoints.headers import read_headers
from medchat.checkpoints.kept_quantized import find_kept, keep, key_of
from medchat.checkpoints.layout import open_checkpoint
from medchat.inference.group_scales import GroupedLinear
from medchat.inference.quantized_file import PreparedModel, QuantizedFile
from medchat.inference.stored_linear import expect_stored
from medchat.language import say
from medchat.units import amount

Prepared = TypeVar("Prepared", bound=PreparedModel)


def with_kept_weights(prepared: Prepared, options: LoadOptions) -> tuple[Prepared, tuple[str, ...]]:
    """Return `prepared`, a dataclass, with kept weights in place of the original's, and what to tell the user.

    Where they are not kept yet they are quantised and written first, in little more memory than the largest
    matrix takes. Unchanged where nothing is quantised for the native engine, or nothing may be kept. Raises
    CheckpointError (damaged weights), and what `placement.watch` raises.
    """
    cache = options.quantized_cache
    if cache is None or not any(isinstance(module, GroupedLinear) for module in prepared.model.modules()):
        return prepared, ()
    file = QuantizedFile(prepared, as_loaded=True)
    if file.size > cache.most_bytes:
        return prepared, (_too_large(file.size, cache.most_bytes),)
    key = key_of(prepared.checkpoint, file.header)
    if found := find_kept(cache, key, file.header, file.size):
        return _from_kept(prepared, found, written=False), ()
    try:
        folder = keep(cache, key, file.size, file.write, options.model, options.quantize)
    except OSError as error:
        return prepared, (_not_kept(error),)
    return _from_kept(prepared, folder, written=True), (_kept(file.size),)


def _from_kept(prepared: Prepared, folder: Path, *, written: bool) -> Prepared:
    checkpoint = open_checkpoint(folder)
    headers = read_headers(checkpoint)
    placement = replace(
        prepared.placement,
        conversions={},
        derived={},
        mapped=expect_stored(prepared.model, headers, prepared.placement.rename),
        # What was read while writing was shown already.
        watch=None if written else prepared.placement.watch,
    )
    changed: Any = prepared
    found: Prepared = replace(changed, checkpoint=checkpoint, headers=headers, placement=placement)
    return found


def _kept(size: int) -> str:
    return say(
        f"量化后的权重已保存（{amount(size)}），下次直接读取；清除：medchat models clean",
        f"the quantised weights are kept ({amount(size)}) and read at the next start; to remove them: "
        "medchat models clean",
    )


def _too_large(size: int, most: int) -> str:
    return say(
        f"量化后的权重有 {amount(size)}，超过了上限 {amount(most)}，没有保存；可调大配置项 quantized_cache",
        f"the quantised weights take {amount(size)}, above the limit of {amount(most)}, and are not kept; the setting "
        "quantized_cache raises it",
    )


def _not_kept(error: OSError) -> str:
    reason = error.strerror or str(error)
    return say(
        f"量化后的权重没有保存（{reason}），下次启动要重新量化",
        f"the quantised weights could not be kept ({reason}): the next start quantises again",
    )
