"""Checkpoints whose linears are packed for the native engine, as headers and config.json show them. No torch here.

docs/specs/engine.md, "Packed files".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from medchat.api import QUANTIZE, ModelCard
from medchat.checkpoints.headers import TensorHeader

#: The key of config.json that states the width of packed weights.
QUANTIZATION_KEY = "medchat_quantization"
#: torch's name of the type that packed bytes have in a file; no dense weight is of that type.
PACKED_TYPE = "uint8"
#: Bytes of 32 packed integers and their scale.
_GROUP, _GROUP_BYTES = 32, {"int8": 34, "int4": 18}


def is_packed(header: TensorHeader) -> bool:
    """Say whether the tensor is a packed matrix."""
    return header.dtype == PACKED_TYPE and len(header.shape) == 1


def holds_packed(headers: Mapping[str, TensorHeader]) -> bool:
    """Say whether any of the tensors is a packed matrix."""
    return any(map(is_packed, headers.values()))


def with_packed_weights(
    card: ModelCard, counted: Iterable[TensorHeader], config: Mapping[str, Any]
) -> ModelCard:
    """Return `card` with the width that `config` states, and the parameters that packed matrices among `counted` hold.

    Unchanged for other weights.
    """
    stated = config.get(QUANTIZATION_KEY)
    if stated not in QUANTIZE or stated not in _GROUP_BYTES:
        return card
    packed = sum(header.count for header in counted if is_packed(header))
    parameters = card.parameters - packed + packed // _GROUP_BYTES[stated] * _GROUP
    dtypes = tuple(dtype for dtype in card.dtypes if dtype != PACKED_TYPE)
    return replace(card, parameters=parameters, dtypes=dtypes, quantization=stated)
