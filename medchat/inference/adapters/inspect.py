"""What an adapter folder is and whether it can be used at all: what `models show` says of one.

Whether it fits a given model is found out when it is attached to that model. Reads the values of the
matrices (17 MB in a published one), and so imports torch, where a header cannot tell.
"""

from __future__ import annotations

import re
from pathlib import Path

from medchat.api import AdapterCard
from medchat.checkpoints.adapter_folder import CHATGLM_PREFIX, kind_of, open_adapter
from medchat.checkpoints.headers import plain_name
from medchat.checkpoints.lora_folder import LoraAdapter, is_lora_folder
from medchat.checkpoints.published_adapters import match_published
from medchat.errors import CheckpointError
from medchat.language import say

_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<matrix>[AB])\.weight")
_PARTNER = {"A": "B", "B": "A"}


def inspect_adapter(folder: Path) -> AdapterCard | None:
    """Describe an adapter folder, or return None if there is none of the kinds that causal models take."""
    if not is_lora_folder(folder):
        return None
    try:
        if kind_of(folder) == CHATGLM_PREFIX:
            return None
        adapter = open_adapter(folder)
        if not isinstance(adapter, LoraAdapter):
            return AdapterCard(notes=adapter.checkpoint.notes)
        found = match_published(adapter)
        name = found.known.name if found else ""
        fault = "" if found and found.by_hash else _lacking(adapter) or _idle(adapter)
        return AdapterCard(name, fault, adapter.checkpoint.notes)
    except CheckpointError as error:
        return AdapterCard(fault=error.what)


def _lacking(adapter: LoraAdapter) -> str:
    """Return the message naming the matrix that lacks its partner, or that there are none."""
    stored = set(adapter.headers)
    pairs = [found for name in sorted(stored) if (found := _MATRIX.fullmatch(name))]
    if not pairs:
        return say("没有 LoRA 矩阵", "it holds no LoRA matrices")
    for found in pairs:
        partner = f"{found['module']}.lora_{_PARTNER[found['matrix']]}.weight"
        if partner not in stored:
            return say(f"缺少 {partner}", f"{partner} is missing")
    return ""


def _idle(adapter: LoraAdapter) -> str:
    """Return the message that no module's delta is other than zero. Raises CheckpointError for values that
    are not finite.
    """
    from medchat.inference.load_weights import check_finite
    from medchat.inference.shards import read_tensors

    acting: dict[str, set[str]] = {}
    for tensor in read_tensors(adapter.checkpoint, lambda name: ".lora_" in name):
        for _, piece in tensor.pieces():
            check_finite(tensor, piece)
            found = _MATRIX.fullmatch(plain_name(tensor.name))
            if found and bool(piece.any()):
                acting.setdefault(found["module"], set()).add(found["matrix"])
    if adapter.settings.get("lora_alpha") != 0 and {"A", "B"} in acting.values():
        return ""
    return say("权重全为零，不起作用", "its weights are all zero, so it has no effect")
