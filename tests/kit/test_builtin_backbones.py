"""The built-in backbones keep to the properties of `medchat.testing`, on miniatures."""

from __future__ import annotations

import pytest
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone

from medchat.testing import BackboneTests

pytestmark = pytest.mark.torch
#: How far the scores of one token may lie apart in a batch and alone, in nats.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}


class TestChatGLM(BackboneTests):
    backbone = ChatGLMBackbone()
    module = "medchat_chatglm.plugin"
    tolerances = TOLERANCES


class TestLlama(BackboneTests):
    backbone = LlamaBackbone()
    module = "medchat_llama.plugin"
    tolerances = TOLERANCES


@pytest.mark.slow  # of LLaMA's base, and slower for its vocabulary
class TestBloom(BackboneTests):
    backbone = BloomBackbone()
    module = "medchat_bloom.plugin"


@pytest.mark.slow  # all that Bloom, which runs above, does not share is in tests/bloom
class TestHuozi(BackboneTests):
    backbone = HuoziBackbone()
    module = "medchat_bloom.plugin"
