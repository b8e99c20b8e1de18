"""What a request asks for, from its JSON: checked, in our terms, with the fields that were not used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medchat.plugin_kit import Conversation, GenerationConfig, UsageError, say
from medchat_serve.api_error import ApiError
from medchat_serve.background import is_background
from medchat_serve.limits import ServerLimits
from medchat_serve.messages import conversation_in

#: Settings of decoding by their names in a request, and the type of each.
_SETTINGS: Mapping[str, tuple[str, type]] = {
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "seed": ("seed", int),
    "max_tokens": ("max_new_tokens", int),
    "max_completion_tokens": ("max_new_tokens", int),
    "top_k": ("top_k", int),
    "repetition_penalty": ("repetition_penalty", float),
}
_MOST_STOPS, _LONGEST_STOP = 16, 1000
_LONGEST_USER = 200


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """One question to be answered.

    `plain` says that it is a text to continue (`/v1/completions`). `settings` are those that the client
    chose, as `GenerationConfig` names them. `notices_apart`: urgent notices do not go into the answer's text.
    `shows_queue`: the client wants to be told its place in the queue. `background`: no person asks (a title
    is wanted). `ignored` names the fields that were not used, `user` whom the client asks for.
    """

    question: str
    conversation: Conversation = Conversation()
    plain: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    notices_apart: bool = False
    shows_queue: bool = False
    background: bool = False
    ignored: tuple[str, ...] = ()
    user: str = ""

    def config_over(self, config: GenerationConfig) -> GenerationConfig:
        """Return `config` with what this request chose. Raises ApiError for a value out of range."""
        try:
            return config.with_settings(**self.settings, stop=(*config.stop, *self.stop))
        except UsageError as error:
            raise ApiError(400, say("；", "; ").join((error.what, error.remedy)), "invalid_value") from None


class RequestFields:
    """The fields of a request's JSON object: each is taken once, in its type; the rest is left over."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._left = dict(body)

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """Return a field, `default` where it is not there or null. Raises ApiError for another type."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise wrong_type(name, kind.__name__)
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong_type(name, "a finite number")
        return value

    def take_any(self, name: str) -> Any:
        """Return a field as it is, None where it is not there."""
        return self._left.pop(name, None)

    @property
    def left(self) -> tuple[str, ...]:
        """The names of the fields that nobody took, but for those that say nothing (null)."""
        return tuple(sorted(name[:80] for name, value in self._left.items() if value is not None))


def wrong_type(name: str, wanted: str) -> ApiError:
    """Return the refusal of a field of another type than `wanted`."""
    return ApiError(
        400, say(f"{name} 的类型不对，应为 {wanted}", f"{name} is of the wrong type: {wanted} is wanted"),
        "invalid_type", name,
    )  # fmt: skip


def read_chat(body: object, limits: ServerLimits) -> AskedQuestion:
    """Return what the body of a chat completion asks for. Raises ApiError."""
    fields = _fields_of(body)
    asked = conversation_in(fields.take("messages", list, []), limits.messages)
    common, left = _common(fields)
    return AskedQuestion(
        question=asked.question,
        conversation=asked.conversation,
        background=is_background(asked.question, asked.conversation.system),
        ignored=(*asked.ignored, *left),
        **common,
    )


def read_completion(body: object) -> AskedQuestion:
    """Return what the body of a text completion asks for: a text to continue, without a template. Raises ApiError."""
    fields = _fields_of(body)
    prompt = fields.take_any("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise wrong_type("prompt", "string")
    common, left = _common(fields)
    return AskedQuestion(question=prompt, plain=True, ignored=left, **common)


def _fields_of(body: object) -> RequestFields:
    if not isinstance(body, dict):
        raise ApiError(400, say("请求应为一个 JSON 对象", "the body must be a JSON object"), "invalid_json")
    return RequestFields(body)


def _common(fields: RequestFields) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take what both calls have in common, and return with it the names of what is left over.

    The model's name is looked at by whoever knows it.
    """
    fields.take("model", str)
    if fields.take("n", int, 1) != 1:
        raise ApiError(
            400,
            say("n 只能是 1：每次只给一个回答", "n must be 1: one answer a request"),
            "invalid_value",
            "n",
        )
    ours = RequestFields(fields.take("medchat", dict, {}))
    options = RequestFields(fields.take("stream_options", dict, {}))
    apart = ours.take("notices", str, "content")
    if apart not in ("content", "field"):
        raise wrong_type("medchat.notices", '"content" | "field"')
    common = {
        "settings": _settings(fields),
        "stop": _stops(fields.take_any("stop")),
        "stream": fields.take("stream", bool, False),
        "include_usage": options.take("include_usage", bool, False),
        "notices_apart": apart == "field",
        "shows_queue": ours.take("queue", bool, False),
        "user": fields.take("user", str, "")[:_LONGEST_USER],
    }
    within = [f"medchat.{name}" for name in ours.left] + [f"stream_options.{name}" for name in options.left]
    return common, (*fields.left, *within)


def _settings(fields: RequestFields) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, (ours, kind) in _SETTINGS.items():
        value = fields.take(name, kind)
        if value is not None:
            chosen[ours] = value
    # OpenAI's way of asking for the likeliest tokens; ours has a name of its own.
    if "temperature" in chosen or "top_p" in chosen:
        least = 0 in (chosen.get("temperature"), chosen.get("top_p"))
        chosen |= {"greedy": least, "num_beams": 1}
        chosen = {
            name: value for name, value in chosen.items() if not (name in ("temperature", "top_p") and least)
        }
    return chosen


def _stops(value: object) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong_type("stop", "string | array of strings")
    if len(stops) > _MOST_STOPS or any(len(stop) > _LONGEST_STOP for stop in stops):
        raise ApiError(
            400, say("stop 太多或太长", "too many stop texts, or too long ones"), "invalid_value", "stop"
        )
    return tuple(stop for stop in stops if stop)
