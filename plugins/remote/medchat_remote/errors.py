"""Errors of an endpoint, each explained in one line with what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx2

from medchat.plugin_kit import CheckpointError, MedchatError, UsageError, say
from medchat.retry import seconds_to_wait
from medchat_remote.address import EXAMPLE, Endpoint
from medchat_remote.key import OURS, ApiKey
from medchat_remote.limits import CONTEXT, DEADLINE
from medchat_remote.proxy import Proxy
from medchat_remote.redaction import shown_words, without_private
from medchat_remote.server_errors import (
    FailureKind,
    ServerError,
    message_in,
    refuses_system,
    remedy_for_refusal,
)

_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504, 529})
#: Statuses that reject the request itself: another one may be accepted.
_BAD_REQUEST = (400, 413, 422)
#: Statuses of a server that accepts no system message; 0 is an error in place of an answer.
_OF_TEMPLATES = (0, 400, 422, 500)


class RequestError(Exception):
    """One attempt failed. `reported` is the error for the user if it was the last.

    `retryable`: another attempt may succeed, after `retry_after` seconds. `status` is that of the response, 0
    if there was none, and `reached` whether the endpoint was reached at all. `server_message` is the server's
    message about a bad request, without the user's text; "" for any other failure.
    """

    def __init__(
        self,
        reported: MedchatError,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        server_message: str = "",
    ) -> None:
        super().__init__(reported.what)
        self.reported = reported
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = 0
        self.reached = True
        self.server_message = server_message


@dataclass(frozen=True, slots=True)
class EndpointErrors:
    """Makes the errors of one endpoint. `private`: the user's text, never repeated; `has_system`: with a
    system text.
    """

    endpoint: Endpoint
    key: ApiKey | None
    proxy: Proxy | None = None
    private: tuple[str, ...] = ()
    has_system: bool = False

    def for_request(self, body: Mapping[str, Any] | None) -> EndpointErrors:
        """Return the same for one request, whose prompt or messages are private."""
        if not body:
            return self
        messages = body.get("messages") or ()
        said = [message["content"] for message in messages]
        if isinstance(body.get("prompt"), str):
            said.append(body["prompt"])
        roles = {message["role"] for message in messages}
        return replace(self, private=tuple(said), has_system="system" in roles)

    def cut_off(self, *, empty: bool = False) -> RequestError:
        """Return the error for a connection that ended before the answer did, or before it began."""
        if empty:
            what = say("没有回答就结束了连接", "the connection ended without an answer")
            remedy = say("再试一次，或查看服务端日志", "try again, or look at the server's log")
        else:
            what = say("连接在回答结束前断开", "the connection ended before the answer did")
            remedy = say("再问一次（/重答）；已收到的部分已保留", "ask again (/regen); what had come is kept")
        return self.make(what, remedy, retryable=True)

    def deadline_passed(self, seconds: float) -> RequestError:
        """Return the error for a request that took longer than a request may."""
        return self.make(
            say(f"{seconds:g} 秒内没有完成", f"not finished within {seconds:g} seconds"),
            say(
                f"已收到的部分已保留；可调高 {DEADLINE}（秒），或调低 --max-new-tokens",
                f"what had come is kept; raise {DEADLINE} (seconds), or lower --max-new-tokens",
            ),
        )

    def malformed(self, found: str) -> RequestError:
        """Return the error for a response that violates the API. `found` is its beginning."""
        if found.strip().lower().startswith(("text/html", "<!doctype", "<html")):
            return self.make(
                say(
                    "返回的是网页，不是 OpenAI 格式的数据",
                    "a web page came back, not data in OpenAI's format",
                ),
                say(
                    f"检查地址，通常以 /v1 结尾：{EXAMPLE}；校园网、酒店网络要先在浏览器里登录",
                    f"check the address, it mostly ends in /v1: {EXAMPLE};"
                    " campus and hotel networks often need a login in a browser first",
                ),
            )
        return self.make(
            say("返回的不是 OpenAI 格式的数据", "the response is not in OpenAI's format")
            + say("：", ": ")
            + self.shown(found, 80),
            say(
                f"检查地址，通常以 /v1 结尾：{EXAMPLE}",
                f"check the address, it mostly ends in /v1: {EXAMPLE}",
            ),
        )

    def server(self, error: ServerError) -> RequestError:
        """Return the error for a failure that the server states in place of an answer or inside one."""
        if error.kind is FailureKind.FILTERED:
            return self.make(
                say("回答被服务方的内容审查截断", "the provider's content filter ended the answer"),
                say("换一种问法，或换一个模型", "word the question differently, or use another model"),
            )
        if error.kind is FailureKind.TOOL_WANTED:
            return self.make(
                say("模型没有回答，而是要求调用工具", "the model asked for a tool in place of an answer"),
                say(
                    "在服务端关闭工具调用，或换一个模型", "turn tools off at the server, or use another model"
                ),
            )
        if error.code or self._is_about_system(0, error.message):
            return self._status_error(error.code, error.message, None)
        return self.make(
            say("服务端出错", "the server failed") + self.quoted(error.message),
            say("稍后再试，或查看服务端日志", "try again later, or look at the server's log"),
            server_message=self._said(error.message),
        )

    # ------------------------------------------------------------ a status that is not success

    def refused(self, response: httpx2.Response, body: str) -> RequestError:
        """Return the error for a status other than success."""
        status = response.status_code
        if 300 <= status < 400:
            failure = self._redirected(response.headers.get("location", ""))
        else:
            wait = seconds_to_wait(response.headers.get("retry-after"))
            failure = self._status_error(status, message_in(body), wait)
        failure.status = status
        return failure

    def _status_error(self, status: int, message: str, wait: float | None) -> RequestError:
        said = self.quoted(message)
        if self._is_about_system(status, message):
            return self._system_refused(said)
        if status in (401, 403):
            return self._unauthorized(status, said)
        if status in (404, 405):
            return self.make(
                say(f"没有这个模型或接口（{status}）", f"no such model or call ({status})") + said,
                say(
                    "检查地址（通常以 /v1 结尾）和 # 后面的模型名",
                    "check the address (it mostly ends in /v1) and the model's name behind #",
                ),
                kind=CheckpointError,
            )
        if status in _BAD_REQUEST:
            return self._bad_request(status, message)
        if status == 407:
            return self.make(
                say("代理要求登录（407）", "the proxy requires a login (407)") + said,
                say(
                    f"export {self._proxy_variable}=http://用户:密码@主机:端口",
                    f"export {self._proxy_variable}=http://USER:PASSWORD@HOST:PORT",
                ),
                kind=UsageError,
            )
        return self._later(status, said, wait)

    def _later(self, status: int, said: str, wait: float | None) -> RequestError:
        """Return the error for a temporary failure: too many requests, or a server error."""
        if status == 429:
            what = say("请求太多或额度用完（429）", "too many requests, or no quota left (429)")
        else:
            what = say(f"服务端出错（{status}）", f"the server failed ({status})")
        remedy = (
            say(f"{wait:.0f} 秒后再试", f"try again in {wait:.0f} seconds")
            if wait
            else say("稍后再试，或查看服务端日志", "try again later, or look at the server's log")
        )
        if self.proxy and status >= 500:
            remedy += say(
                f"；也可能出在代理 {self.proxy.shown}（绕过：export NO_PROXY={self.endpoint.host}）",
                f"; or it is the proxy {self.proxy.shown} (go without: export NO_PROXY={self.endpoint.host})",
            )
        return self.make(what + said, remedy, retryable=status in _RETRYABLE, retry_after=wait)

    def _is_about_system(self, status: int, message: str) -> bool:
        return self.has_system and status in _OF_TEMPLATES and refuses_system(message)

    def _system_refused(self, said: str) -> RequestError:
        return self.make(
            say("这个模型不接受系统提示", "this model takes no system prompt") + said,
            say(
                "去掉它（对话里 /系统 -；否则是 --system、配置或数据里的 system）",
                "leave it out (/system - in a chat; else --system, or system in configuration or data)",
            ),
            kind=UsageError,
        )

    def _unauthorized(self, status: int, said: str) -> RequestError:
        if self.key is None:
            what = say(f"需要密钥（{status}）", f"a key is needed ({status})")
            remedy = f"export {OURS}=…"
        else:
            name = self.key.variable
            what = say(f"不接受 {name} 里的密钥（{status}）", f"the key in {name} is not accepted ({status})")
            remedy = say(f"检查后重新设置：export {name}=…", f"check it and set it again: export {name}=…")
        return self.make(what + said, remedy, kind=UsageError)

    def _bad_request(self, status: int, message: str) -> RequestError:
        plain = message.lower()
        if "https" in plain and not self.endpoint.encrypted:
            return self.wants_encryption()
        too_long = "context" in plain and any(word in plain for word in ("length", "window", "token"))
        what = say(f"不接受这个请求（{status}）", f"the request was not accepted ({status})")
        remedy = (
            say(
                f"告诉 MedChat 它的上下文长度：export {CONTEXT}=词元数；或调低 --max-new-tokens",
                f"tell MedChat how long its context is: export {CONTEXT}=TOKENS; or lower --max-new-tokens",
            )
            if too_long
            else remedy_for_refusal(message)
        )
        # A request that is too long cannot be fixed by omitting a setting.
        server_message = "" if too_long else self._said(message)
        return self.make(what + self.quoted(message), remedy, kind=UsageError, server_message=server_message)

    def wants_encryption(self) -> RequestError:
        """Return the error for an http request to an https endpoint."""
        return self.make(
            say("这个端口很可能要用加密连接（https）", "most likely this port speaks https"),
            say(f"地址改成 https://{self.endpoint.authority}…", f"write https://{self.endpoint.authority}…"),
            kind=UsageError,
        )

    def _redirected(self, location: str) -> RequestError:
        target = self.shown(urlsplit(location).netloc or location, 100)
        return self.make(
            say(
                f"要求转到 {target}；MedChat 不跟随跳转",
                f"it points to {target}; MedChat follows no redirect",
            ),
            say("如果信任那里，直接写那个地址", "if you trust that place, give its address"),
            kind=UsageError,
        )

    # ------------------------------------------------------------ wording

    def quoted(self, message: str) -> str:
        """Return ": " and a server's sanitized message; "" for none."""
        shown = self.shown(message, 200)
        return f": {shown}" if shown else ""

    def make(
        self,
        what: str,
        remedy: str,
        *,
        kind: type[MedchatError] | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        server_message: str = "",
    ) -> RequestError:
        """Return an error of this endpoint. `what` and `remedy` contain no raw text of a server."""
        error = (kind or MedchatError)(what, remedy, where=self.endpoint.authority)
        return RequestError(
            error, retryable=retryable, retry_after=retry_after, server_message=server_message
        )

    def holds_key(self, text: str) -> bool:
        """Whether `text` contains the key, or enough of it, in any encoding."""
        return without_private(text, self._secret) != without_private(text, "")

    @property
    def _proxy_variable(self) -> str:
        return self.proxy.variable if self.proxy else f"{self.endpoint.scheme}_proxy"

    @property
    def _secret(self) -> str:
        return self.key.value if self.key else ""

    def _said(self, message: str) -> str:
        return without_private(message, self._secret, self.private)

    def shown(self, text: str, longest: int) -> str:
        """Return a server's message, sanitized and cut to `longest` characters."""
        return shown_words(text, self._secret, self.private, longest)
