"""The body of a request: decoding settings in OpenAI's words, and what an endpoint turned out not to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medchat.api import GenerationConfig, Segment
from medchat.errors import UsageError
from medchat.language import say
from medchat_remote.limits import answer_bytes
from medchat_remote.messages import as_messages, as_text


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one endpoint wants to be asked; changed by what it complains of."""

    counts_while_streaming: bool = True
    length_limit: str = "max_tokens"

    def after(self, server_message: str) -> Dialect:
        """Return the dialect that avoids what a refusal names; the same one if it names nothing of ours."""
        if "stream_options" in server_message:
            return replace(self, counts_while_streaming=False)
        if "max_completion_tokens" in server_message:
            return replace(self, length_limit="max_completion_tokens")
        return self


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

    @classmethod
    def build(cls, segments: Sequence[Segment], config: GenerationConfig) -> ChatRequest:
        """Return the request for a prompt: messages where the template kept them, one text otherwise.

        Raises UsageError for beam search, which the API does not have.
        """
        if config.num_beams > 1:
            raise UsageError(
                say("远程接口不支持集束搜索", "a remote endpoint has no beam search"),
                say("去掉 --num-beams，改用 --greedy", "leave --num-beams out and use --greedy"),
            )
        messages = as_messages(segments)
        if messages is None:
            return cls("/completions", (("prompt", as_text(segments)),), config)
        return cls("/chat/completions", (("messages", messages),), config)

    def body(self, model: str, dialect: Dialect) -> dict[str, Any]:
        """Return the JSON to send. Settings that are off are left out: not every server knows them."""
        config = self.config
        body: dict[str, Any] = {"model": model, **dict(self.prompt), "stream": True}
        body[dialect.length_limit] = config.max_new_tokens
        if dialect.counts_while_streaming:
            body["stream_options"] = {"include_usage": True}
        body |= (
            {"temperature": config.temperature, "top_p": config.top_p}
            if config.samples
            else {"temperature": 0}
        )
        if config.samples and config.top_k:
            body["top_k"] = config.top_k
        if config.repetition_penalty != 1.0:
            body["repetition_penalty"] = config.repetition_penalty
        if config.seed is not None:
            body["seed"] = config.seed
        if config.stop:
            body["stop"] = list(config.stop)
        return body
