"""The body of a request: decoding settings in OpenAI's words, and what an endpoint turned out not to take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medchat.plugin_kit import GenerationConfig, Segment, UsageError, guess_tokens, say
from medchat_remote.limits import answer_bytes
from medchat_remote.messages import as_messages, as_text

#: How tokens are drawn: the server's own way unless the user chose. Sent under these names.
SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")
_LENGTH_LIMITS = ("max_tokens", "max_completion_tokens")
#: What is left out if a refusal names it, the least missed first. Of two settings that a server will not have
#: together, the one that says less goes.
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
#: What the user calls them, where that is another name; "" for what is ours alone.
_OWN_NAMES = {
    "stream": "",
    "stream_options": "",
    "stop": "",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one endpoint wants to be asked; changed by what it complains of.

    `omitted` holds the fields that it did not take, each with the value (as JSON) that was refused: another
    value may be taken.
    """

    length_limit: str = "max_tokens"
    omitted: frozenset[tuple[str, str]] = frozenset()

    def after(self, complaint: str, body: Mapping[str, Any]) -> Dialect:
        """Return the dialect that avoids what a refusal of `body` names; the same one if it names nothing in it."""
        plain = complaint.lower()
        if "max_tokens" in body and _names("max_completion_tokens", plain):
            return replace(self, length_limit="max_completion_tokens")
        for field in (*_DISPENSABLE, *_LENGTH_LIMITS):
            if field in body and _names(field, plain):
                return replace(self, omitted=self.omitted | {_sent(field, body[field])})
        return self

    def applied_to(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return `body` without what the endpoint does not take, and the user's settings among that."""
        left_out = [field for field in body if _sent(field, body[field]) in self.omitted]
        settings = [_OWN_NAMES.get(field, field) for field in left_out]
        kept = {field: value for field, value in body.items() if field not in left_out}
        return kept, tuple(name for name in settings if name)


def _sent(field: str, value: object) -> tuple[str, str]:
    return field, json.dumps(value)


def _names(field: str, complaint: str) -> bool:
    """Whether a complaint in lower case names the field: `top_p`, `top-p`, `topP`, `top p`."""
    return re.search(rf"(?<![a-z0-9]){field.replace('_', '[_ -]?')}(?![a-z0-9])", complaint) is not None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question: the call it goes to, below the endpoint's base, and what is sent whatever the dialect."""

    call: str
    prompt: tuple[tuple[str, Any], ...]
    config: GenerationConfig

    @property
    def budget(self) -> int:
        """The most bytes that an answer to it may have."""
        return answer_bytes(self.config.max_new_tokens)

    @property
    def tokens(self) -> int:
        """About the most tokens that prompt and answer take together."""
        said = dict(self.prompt).get("messages") or [{"content": dict(self.prompt)["prompt"]}]
        return guess_tokens(message["content"] for message in said) + self.config.max_new_tokens

    @classmethod
    def build(cls, segments: Sequence[Segment], config: GenerationConfig) -> ChatRequest:
        """Return the request for a prompt: messages where the template kept them, one text otherwise.

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
        """Return the JSON to send, and the user's settings that this endpoint does not take.

        How tokens are drawn is sent only where the user chose it: not every server knows every setting, and
        each has good values of its own.
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
