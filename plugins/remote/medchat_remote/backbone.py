"""Any OpenAI-compatible endpoint (vLLM, SGLang, Ollama, `transformers serve`, hosted ones) as a backbone.

Cheap to import: the HTTP client is imported by `load`, so it does not slow down `plugins list` and the first
prompt.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medchat.plugin_kit import (
    Backbone,
    Capabilities,
    ChatModel,
    GenerationConfig,
    LoadOptions,
    ModelCard,
    Option,
    PromptTemplate,
    UsageError,
    say,
)
from medchat_remote.address import Endpoint
from medchat_remote.key import find_key
from medchat_remote.limits import RATES
from medchat_remote.messages import MessagesTemplate
from medchat_remote.notices import destination_notices
from medchat_remote.proxy import proxy_for
from medchat_remote.request import SAMPLING


class RemoteBackbone(Backbone):
    """A model served over HTTP. The user's text leaves this process, which `notices` says."""

    name = "remote"
    summary: Mapping[str, str] = {
        "zh": "任何 OpenAI 兼容的接口（vLLM、SGLang、Ollama、transformers serve）；问题会发送到该接口",
        "en": "any OpenAI-compatible endpoint (vLLM, SGLang, Ollama, transformers serve); questions are sent to it",
    }
    capabilities = Capabilities(
        beams=False, adapters=False, concurrent=True, devices=(), dtypes=(), quantize=()
    )
    load_keys: Mapping[str, Option | tuple[str, ...]] = RATES
    not_applicable: Mapping[str, str] = {
        "test_a_kept_cache_answers_as_a_fresh_one": "what is kept of a prompt is the endpoint's affair",
        "test_an_unknown_control_token_is_a_usage_error": "an endpoint gets text: a control token goes as its name",
        **dict.fromkeys(
            (
                "test_scores_are_those_of_generation",
                "test_a_score_that_does_not_fit_is_a_usage_error",
                "test_what_is_declared_can_be_done",
            ),
            "only servers that echo a prompt with its log-probabilities can score, and only in a named template",
        ),
    }
    generation = GenerationConfig(max_new_tokens=1024, unset=frozenset((*SAMPLING, "seed")))

    def address(self, value: str) -> str:
        """Return the normalised address of endpoint and model. Raises UsageError."""
        return Endpoint.parse(value).address

    def notices(self, options: LoadOptions) -> tuple[str, ...]:
        """Return where the text is sent. Raises UsageError for a key or a proxy that cannot be used."""
        endpoint = Endpoint.parse(options.location)
        return destination_notices(endpoint, find_key(endpoint, os.environ), proxy_for(endpoint))

    def load(self, options: LoadOptions) -> ChatModel:
        """Connect to the endpoint and find the model. None of the user's text is sent yet."""
        from medchat_remote.loading import load_remote_model

        return load_remote_model(options)

    def template(self, options: LoadOptions) -> PromptTemplate:
        """Return the template of messages with roles: the endpoint applies the model's own chat template."""
        return MessagesTemplate()

    def inspect(self, path: Path) -> ModelCard | None:
        """Return None: no folder is a remote model."""
        return None

    def tiny(self, path: Path, *, corpus: Sequence[str] = (), seed: int = 0, **shape: int) -> None:
        """Raise UsageError: there are no weights to write."""
        raise UsageError(
            say("remote 没有权重，做不出微型模型", "remote has no weights: there is no miniature to write"),
            say("换一个模型家族，例如：medchat demo", "take a model family that has: medchat demo"),
        )
