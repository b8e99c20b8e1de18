"""Finds the model of an endpoint, its context length, and whether it can count tokens."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from medchat.plugin_kit import LoadOptions, UsageError, sanitize_line, say
from medchat.retry import RetrySchedule
from medchat_remote.address import Endpoint
from medchat_remote.chat_model import RemoteFacts, RemoteModel
from medchat_remote.connection import Connection
from medchat_remote.counting import Counter
from medchat_remote.errors import RequestError
from medchat_remote.key import find_key
from medchat_remote.limits import ASSUMED_CONTEXT, CONTEXT, CONTEXTS, Limits

#: The fields with a model's context length: vLLM and SGLang; OpenRouter; Groq; Mistral; llama.cpp (in
#: `meta`).
_CONTEXT_FIELDS = (
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
    "n_ctx",
    "n_ctx_train",
)
#: The timeout of the list of models if a model is named.
_LIST_SECONDS = 10.0
#: The statuses of a gateway without a list of models.
_NO_LIST = (400, 422, 501)
#: Sent to `medchat serve`. This MedChat shows the notices on the user's words itself: in the answer's text they
#: would be shown twice, and saved as words of the model.
_OWN_FIELDS: Mapping[str, Any] = {"medchat": {"notices": "field"}}
#: The number of tokens that a price refers to.
_MILLION = 1_000_000
#: The number of available models that an error names.
_NAMED = 5


def load_remote_model(options: LoadOptions, backoff: RetrySchedule | None = None) -> RemoteModel:
    """Connect to the endpoint in `options` and return the model. Sends none of the user's text.

    Raises UsageError (--offline, adapters, no key, several models and none named), CheckpointError (no
    such call), MedchatError (unreachable).
    """
    endpoint = Endpoint.parse(options.location)
    if options.offline:
        raise UsageError(
            say("--offline 禁止使用远程模型", "--offline forbids a remote model"),
            say("去掉 --offline", "leave --offline out"),
            where=endpoint.authority,
        )
    if options.adapters:
        raise UsageError(
            say("远程模型不能在这里加适配器", "a remote model takes no adapter here"),
            say("在服务端加载适配器，再用 # 写它的名称", "load it at the server and give its name behind #"),
        )
    limits = Limits.from_environment(os.environ, options.extra)
    try:
        connection = Connection(endpoint, find_key(endpoint, os.environ), limits, backoff)
    except OSError as error:
        raise UsageError(
            say(f"无法读取证书文件：{error}", f"cannot read the certificates: {error}"),
            say("检查 SSL_CERT_FILE 和 SSL_CERT_DIR", "check SSL_CERT_FILE and SSL_CERT_DIR"),
        ) from None
    try:
        return _load(connection, limits)
    except BaseException:
        connection.close()
        raise


def _load(connection: Connection, limits: Limits) -> RemoteModel:
    offered, unlisted = connection.call(_offered(connection))
    endpoint = connection.endpoint
    model = endpoint.model or _only(offered, endpoint)
    counter = Counter(connection, model)
    stated = counter.probe() or _stated_context(offered.get(model, {}))
    context = limits.context_length or stated or ASSUMED_CONTEXT
    notes = _notes(endpoint, model, offered, unlisted, context, assumed=not (limits.context_length or stated))
    prices = _stated_prices(offered.get(model, {}))
    fields = _OWN_FIELDS if offered.get(model, {}).get("owned_by") == "medchat" else {}
    return RemoteModel(connection, RemoteFacts(model, context, notes, prices, fields), counter)


def _notes(
    endpoint: Endpoint,
    model: str,
    offered: Mapping[str, Any],
    unlisted: str,
    context: int,
    *,
    assumed: bool,
) -> tuple[str, ...]:
    """Return the notes on the model for the user, a line each. `unlisted` says why there is no list of models."""
    host, name = sanitize_line(endpoint.authority, 100), sanitize_line(model, 100)
    notes = [
        say(
            f"远程模型 {name}（{host}），上下文 {context} 词元",
            f"remote model {name} ({host}), context {context} tokens",
        )
    ]
    if assumed:
        notes.append(
            say(
                f"接口没有说明上下文长度，按 {context} 计；可用 {CONTEXT} 指定",
                f"the endpoint does not state its context: taken for {context}; {CONTEXT} says otherwise",
            )
        )
    if offered and model not in offered:
        notes.append(
            say(
                f"接口的模型列表里没有这个名称，只有：{_listed(offered)}",
                f"the endpoint does not list that name, only: {_listed(offered)}",
            )
        )
    if unlisted:
        notes.append(
            say(
                f"没有取得模型列表（{unlisted}），不影响提问",
                f"no list of models ({unlisted}); questions are asked all the same",
            )
        )
    return tuple(notes)


async def _offered(connection: Connection) -> tuple[dict[str, Mapping[str, Any]], str]:
    """Return the listed models by name, and a note if the endpoint has no list.

    The list is needed only where no model is named. Any other response of an endpoint that was reached gives
    a note at most: Ollama without a model returns null, gateways reject the request or return a web page.
    """
    url, named = connection.endpoint.base + "/models", bool(connection.endpoint.model)
    try:
        if named:
            answer = await connection.fetch("GET", url, retry=False, seconds=_LIST_SECONDS)
        else:
            answer = await connection.fetch("GET", url)
    except RequestError as error:
        if error.reached and named:
            return {}, sanitize_line(error.reported.what, 200)
        if error.status in (404, 405):
            return {}, ""
        if error.status in _NO_LIST:
            error.reported.remedy = _how_to_name(connection.endpoint)
        elif error.status in (401, 403) or error.status >= 500:
            error.reported.remedy += _or_named(connection.endpoint)
        raise
    models = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
    if models is not None and not isinstance(models, list):
        unreadable = connection.errors.malformed(f"/models: {type(models).__name__}")
        if named:
            return {}, unreadable.reported.what
        unreadable.reported.remedy += _or_named(connection.endpoint)
        raise unreadable
    entries = [model for model in models or () if isinstance(model, dict)]
    by_name = {
        name: model for model in entries if isinstance(name := model.get("id", model.get("name")), str)
    }
    # A name is shown and saved: one that contains the key is rejected.
    holds_key = connection.errors.holds_key
    return {name: model for name, model in by_name.items() if name and not holds_key(name)}, ""


def _how_to_name(endpoint: Endpoint) -> str:
    address = f"--model {endpoint.base}#"
    return say(f"在地址后面用 # 写模型名：{address}模型名", f"write its name behind #: {address}MODEL")


def _or_named(endpoint: Endpoint) -> str:
    return say("；或者不取列表，", "; or do without the list: ") + _how_to_name(endpoint)


def _only(offered: Mapping[str, Any], endpoint: Endpoint) -> str:
    if len(offered) == 1:
        return next(iter(offered))
    address = f"--model {endpoint.base}#"
    if not offered:
        raise UsageError(
            say("没有写明要哪个模型，接口也没有列出", "no model was named, and the endpoint lists none"),
            _how_to_name(endpoint),
            where=endpoint.authority,
        )
    raise UsageError(
        say(
            f"接口有 {len(offered)} 个模型，要写明用哪个", f"the endpoint has {len(offered)} models: name one"
        ),
        f"{address}{sanitize_line(next(iter(offered)), 100)}"
        + say(f"（有：{_listed(offered)}）", f" (there are: {_listed(offered)})"),
        where=endpoint.authority,
    )


def _listed(offered: Sequence[str] | Mapping[str, Any]) -> str:
    names = [sanitize_line(name, 60) for name in list(offered)[:_NAMED]]
    return ", ".join(names) + ("…" if len(offered) > _NAMED else "")


def _stated_context(model: Mapping[str, Any]) -> int | None:
    meta = model.get("meta")
    for place in (model, meta if isinstance(meta, dict) else {}):
        for field in _CONTEXT_FIELDS:
            value = place.get(field)
            if isinstance(value, int) and value in CONTEXTS:
                return value
    return None


def _stated_prices(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the price of a million tokens if the list of models states it like OpenRouter: USD per token."""
    pricing = model.get("pricing")
    if not isinstance(pricing, dict):
        return {}
    try:
        prices = {name: float(pricing[name]) * _MILLION for name in ("prompt", "completion")}
    except (KeyError, TypeError, ValueError):
        return {}
    if not all(0 <= price < math.inf for price in prices.values()):  # -1: varies by question
        return {}
    return {**prices, "currency": "USD"}
