"""GPT-2, whose fused projections are Conv1D and no linears of torch, as a backbone of `medchat.hf`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from medchat.hf import TransformersBackbone
from medchat.testing import BackboneTests

pytestmark = pytest.mark.torch


class GPT2(TransformersBackbone):
    """Its projections are fused in Conv1D, which is no linear of torch."""

    name = "gpt2"
    summary: ClassVar[Mapping[str, str]] = {"zh": "", "en": ""}
    model_types = ("gpt2",)
    lora_targets = ("c_attn",)
    bottleneck_targets = ("c_proj", "c_proj")


class TestGPT2(BackboneTests):
    backbone = GPT2()
