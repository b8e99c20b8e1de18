"""The built-in backbones keep to the properties of `medchat.testing`, on miniatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest
from medchat_bloom.backbone import BloomBackbone
from medchat_bloom.huozi.backbone import HuoziBackbone
from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone

from medchat.testing import BackboneTests

pytestmark = pytest.mark.torch


class TestChatGLM(BackboneTests):
    backbone = ChatGLMBackbone()
    module = "medchat_chatglm.plugin"
    not_applicable: ClassVar[Mapping[str, str]] = {
        "test_a_kept_cache_answers_as_a_fresh_one": "its prompt attends in both directions: nothing of it can be kept"
    }


class TestLlama(BackboneTests):
    backbone = LlamaBackbone()
    module = "medchat_llama.plugin"


class TestBloom(BackboneTests):
    backbone = BloomBackbone()
    module = "medchat_bloom.plugin"


class TestHuozi(BackboneTests):
    backbone = HuoziBackbone()
    module = "medchat_bloom.plugin"
