"""The body of a request: decoding settings with OpenAI's names, without those that an endpoint rejects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medchat.plugin_kit import GenerationConfig, Segment, UsageError, guess_tokens, say
from medchat_remote.limits import answer_bytes
from medchat_remote.messages import as_messages, as_text

#: Sampling settings by their names in the API: the server's own values unless the user set them.
SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")
_LENGTH_LIMITS = ("max_tokens", "max_completion_tokens")
#: Settings to omit if an error names them, the least important first. Of two settings that a server rejects
#: together, the less important one is omitted.
_DISPENSABLE = (
    "stream_options",
    "stop",
    "seed",
    "repetition_penalty",
    "top_k",
    "top_p",
    "temperature",
    "stream",
)
#: The user's names of them if they differ; "" for internal ones.
_OWN_NAMES = {
    "stream": "",
    "stream_options": "",
    "stop": "",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """The variant of the API that one endpoint accepts; learned from its errors.

    `omitted` has the rejected fields, each with the rejected value (as JSON): another value may be accepted.
    """

    length_limit: str = "max_tokens"
    omitted: frozenset[tuple[str, str]] = frozenset()

    def after(self, message: str, body: Mapping[str, Any]) -> Dialect:
        """Return the dialect that avoids what an error about `body` names; the same one if it names no field."""
        plain = message.lower()
        if "max_tokens" in body and _names("max_completion_tokens", plain):
            return replace(self, length_limit="max_completion_tokens")
        for field in (*_DISPENSABLE, *_LENGTH_LIMITS):
            if field in body and _names(field, plain):
                return replace(self, omitted=self.omitted | {_sent(field, body[field])})
        return self

    def applied_to(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return `body` without what the endpoint rejects, and the user's settings that were removed."""
        left_out = [field for field in body if _sent(field, body[field]) in self.omitted]
        settings = [_OWN_NAMES.get(field, field) for field in left_out]
        kept = {field: value for field, value in body.items() if field not in left_out}
        return kept, tuple(name for name in settings if name)


def _sent(field: str, value: object) -> tuple[str, str]:
    return field, json.dumps(value)


def _names(field: str, message: str) -> bool:
    """Whether an error message in lower case names the field: `top_p`, `top-p`, `topP`, `top p`."""
    return re.search(rf"(?<![a-z0-9]){field.replace('_', '[_ -]?')}(?![a-z0-9])", message) is not None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question: the API call, relative to the endpoint's base, and the body before applying a dialect."""

    call: str
    prompt: tuple[tuple[str, Any], ...]
    config: GenerationConfig

    @property
    def budget(self) -> int:
        """The largest number of bytes of its response."""
        return answer_bytes(self.config.max_new_tokens)

    @property
    def tokens(self) -> int:
        """The approximate largest number of tokens of prompt and answer together."""
        said = dict(self.prompt).get("messages") or [{"content": dict(self.prompt)["prompt"]}]
        return guess_tokens(message["content"] for message in said) + self.config.max_new_tokens

    @classmethod
    def build(cls, segments: Sequence[Segment], config: GenerationConfig) -> ChatRequest:
        """Return the request for a prompt: messages if the template kept them, else one text.

        Raises UsageError for beam search, which the API does not have.
        """
        if config.num_beams > 1:
            raise UsageError(
                say("远程接口不支持束搜索", "a remote endpoint has no beam search"),
                say("去掉 --num-beams，改用 --greedy", "leave --num-beams out and use --greedy"),
            )
        messages = as_messages(segments)
        if messages is None:
            return cls("/completions", (("prompt", as_text(segments)),), config)
        return cls("/chat/completions", (("messages", messages),), config)

    def body(self, model: str, dialect: Dialect) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the JSON to send, and the user's settings that this endpoint rejects.

        Sampling settings are sent only if the user set them: not every server knows every setting, and each
        has good defaults.
        """
        config = self.config
        body: dict[str, Any] = {"model": model, **dict(self.prompt), "stream": True}
        body[dialect.length_limit] = config.max_new_tokens
        body["stream_options"] = {"include_usage": True}
        if not config.samples:
            body["temperature"] = 0
        for name in SAMPLING if config.samples else ("repetition_penalty",):
            if name not in config.unset:
                body[name] = getattr(config, name)
        if config.seed is not None:
            body["seed"] = config.seed
        if config.stop:
            body["stop"] = list(config.stop)
        return dialect.applied_to(body)
