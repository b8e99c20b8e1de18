"""A remote model keeps to the properties of `medchat.testing` that an endpoint can have: here one that computes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from abacus_backbone import CONTEXT, AbacusModel, Template
from medchat_remote.backbone import RemoteBackbone
from openai_server import Asked, OpenAIServer, Reply, refusal

from medchat.api import GenerationConfig, Segment, Text, Turn
from medchat.errors import UsageError
from medchat.testing import BackboneTests


def computed(asked: Asked) -> Reply:
    """Answer as the abacus does what it is asked, by the settings that come with it."""
    prompt: Sequence[Segment] = [Text(asked.body.get("prompt", ""))]
    if said := [one["content"] for one in asked.body.get("messages", ()) if one["role"] != "system"]:
        prompt = Template().render([*map(Turn, said[:-1:2], said[1::2])], said[-1])
    config = GenerationConfig(
        max_new_tokens=asked.body.get("max_tokens", 64),
        temperature=asked.body.get("temperature") or 1.0,
        greedy=not asked.body.get("temperature"),
        seed=asked.body.get("seed"),
    )
    try:
        *deltas, end = AbacusModel(Path(), {}).stream(prompt, config, threading.Event())
    except UsageError:
        return refusal(400, f"This model's maximum context length is {CONTEXT} tokens.")
    return Reply(
        pieces=[delta.text for delta in deltas],
        finish=str(end.finish),
        usage={"prompt_tokens": end.prompt_tokens, "completion_tokens": end.completion_tokens},
    )


class TestRemote(BackboneTests):
    backbone = RemoteBackbone()
    module = "medchat_remote.plugin"

    @classmethod
    def setup_class(cls) -> None:
        super().setup_class()
        cls.server = OpenAIServer()
        cls.server.models = {"object": "list", "data": [{"id": "tiny", "max_model_len": CONTEXT}]}
        cls.server.reply_to = computed
        cls.model = f"{cls.server.url}#tiny"

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.server.close()
