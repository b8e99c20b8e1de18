"""The JSON of an answer, whole and in chunks, of either call."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medchat.plugin_kit import AnswerFinished, Finish, Notice, aigc_metadata

#: How an answer ended, in OpenAI's words.
_REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length"}


@dataclass(frozen=True, slots=True)
class About:
    """What belongs to every answer beside its text; `ignored` names the fields of the request that were not used."""

    disclaimer: str
    ignored: tuple[str, ...] = ()


@dataclass
class Reply:
    """One answer as it is sent. `plain`: of `/v1/completions`."""

    model: str
    plain: bool
    about: About
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("cmpl-" if self.plain else "chatcmpl-") + secrets.token_hex(12)

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer: that it is made by AI, for whoever reads no body."""
        return {
            "X-MedChat-AIGC": f"Label=1; ContentProducer=MedChat; ProduceID={self.id}",
            "X-MedChat-Disclaimer": "AI-generated, for reference only, no substitute for a physician",
            "Cache-Control": "no-store",
        }

    def whole(
        self, text: str, finished: AnswerFinished | None, reasoning: str, medchat: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the whole answer. `medchat` is what the method of that name returns."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if reasoning:
            message["reasoning_content"] = reasoning
        said = {"text": text} if self.plain else {"message": message}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason(finished)}
        return {
            **self._head("text_completion" if self.plain else "chat.completion"),
            "choices": [choice],
            "usage": usage(finished),
            "medchat": medchat,
        }

    def chunk(
        self, text: str = "", *, finish: str | None = None, reasoning: str = "", first: bool = False
    ) -> dict[str, Any]:
        """Return the next piece; `first` names the role, `finish` says why the answer ended."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        if reasoning:
            delta["reasoning_content"] = reasoning
        if text or first:
            delta["content"] = text
        said = {"text": text} if self.plain else {"delta": delta}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return {
            **self._head("text_completion" if self.plain else "chat.completion.chunk"),
            "choices": [choice],
        }

    def usage_chunk(self, finished: AnswerFinished | None) -> dict[str, Any]:
        """Return the chunk behind the last one that holds the counts alone."""
        head = self._head("text_completion" if self.plain else "chat.completion.chunk")
        return {**head, "choices": [], "usage": usage(finished)}

    def medchat(self, text: str, notices: Sequence[Notice], dropped_turns: int) -> dict[str, Any]:
        """Return what MedChat owes with the answer: notices, disclaimer, the label of generated content.

        `dropped_turns`: so many of the oldest turns were not sent to the model.
        """
        said: dict[str, Any] = {
            "notices": [notice_fields(notice) for notice in notices],
            "disclaimer": self.about.disclaimer,
            "aigc": aigc_metadata(text, self.id),
        }
        if dropped_turns:
            said["dropped_turns"] = dropped_turns
        if self.about.ignored:
            said["ignored"] = list(self.about.ignored)
        return said

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def notice_fields(notice: Notice) -> dict[str, Any]:
    """Return a notice as a client gets it."""
    return {"key": notice.key, "text": notice.text, "urgent": notice.urgent}


def finish_reason(finished: AnswerFinished | None) -> str:
    """Return why an answer ended. One that ran out of time was cut like one that ran out of tokens."""
    return "stop" if finished is None else _REASONS.get(finished.turn.finish, "length")


def usage(finished: AnswerFinished | None) -> dict[str, int]:
    """Return the counts of an answer, in tokens."""
    prompt = finished.stats.prompt_tokens if finished else 0
    completion = finished.stats.completion_tokens if finished else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def as_event(value: Mapping[str, Any]) -> bytes:
    """Return one server-sent event that holds `value`."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


#: The last event of a stream.
DONE = b"data: [DONE]\n\n"
