"""Helpers of tests of both engines. Without a compiler those of the native one are skipped."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from medchat.inference.cpu_engine.library import EngineUnavailableError, open_library
from medchat.inference.engine import NativeLinear
from medchat.inference.group_scales import GroupedLinear
from medchat.inference.quantization import QuantizedLinear


def _missing() -> str:
    try:
        open_library()
    except EngineUnavailableError as error:
        return error.what
    return ""


COMPILED = pytest.mark.skipif(bool(_missing()), reason=_missing() or "compiled")
#: For tests that hold on either engine.
EITHER_ENGINE = pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=COMPILED)])


def rounded(weight: Tensor, bits: int, engine: str) -> Tensor:
    """Return [rows, columns] with the engine's rounding at loading, in float32."""
    kind = {"torch": QuantizedLinear, "native": GroupedLinear}[engine]
    layer = kind(weight.shape[1], weight.shape[0], bits, bias=False)
    layer.set_dense(weight)
    return layer.dense_weight()


def round_head(model: PreTrainedModel, bits: int, engine: str) -> None:
    """Round the head of a dense model as the engine does at loading: torch's stays; the embedding always does."""
    if engine == "native":
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(rounded(head.weight.half(), bits, engine))


def dense(layer: NativeLinear) -> nn.Linear:
    """Return a plain linear with the very weights of the engine's, in float32."""
    made = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    made.weight, made.bias = nn.Parameter(layer.dense_weight()), layer.bias
    return made


def read(chat: Any, ids: Sequence[int]) -> Tensor:
    """Return the logits [V] behind a prompt, whichever engine computes them."""
    return torch.as_tensor(chat.stepper.prefill(ids, threading.Event()))


def advance(chat: Any, token: int) -> Tensor:
    """Return the logits [V] behind one more token, likewise."""
    return torch.as_tensor(chat.stepper.advance(token))


def distance(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference as a share of the spread of `wanted`; never 0 for two ways to compute."""
    assert not torch.equal(found, wanted)
    return float((found - wanted).abs().max() / wanted.std())
