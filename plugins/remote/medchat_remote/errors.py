"""What can go wrong on the way to an endpoint and back, each told in one line with what to do next."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from medchat.errors import CheckpointError, MedchatError, UsageError
from medchat.language import say
from medchat.retry import seconds_to_wait
from medchat.sanitize import sanitize_line
from medchat_remote.address import EXAMPLE, Endpoint
from medchat_remote.key import OURS, ApiKey
from medchat_remote.limits import CONTEXT, TIMEOUT

_WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504, 529})


class RequestError(Exception):
    """One try failed. `error` is what the user is told if it was the last.

    `again` says that another try may succeed, `retry_after` when (seconds). `status` is that of the answer,
    0 where there was none; `server_message` the server's own words about the request.
    """

    def __init__(
        self,
        error: MedchatError,
        *,
        again: bool = False,
        retry_after: float | None = None,
        server_message: str = "",
    ) -> None:
        super().__init__(error.what)
        self.error = error
        self.again = again
        self.retry_after = retry_after
        self.status = 0
        self.server_message = server_message


@dataclass(frozen=True, slots=True)
class EndpointErrors:
    """Tells the failures of one endpoint."""

    endpoint: Endpoint
    key: ApiKey | None
    timeout: float

    # ------------------------------------------------------------ no answer at all

    def transport(self, error: httpx2.HTTPError) -> RequestError:
        """Tell why there was no answer, or no more of it."""
        if isinstance(error, httpx2.TimeoutException):
            return self._timed_out(error)
        if isinstance(error, httpx2.ProxyError):
            return self._failure(
                say("代理拒绝了连接", "the proxy refused the connection")
                + f": {sanitize_line(str(error), 120)}",
                say(
                    "检查 HTTPS_PROXY，或用 NO_PROXY 绕过", "check HTTPS_PROXY, or go round it with NO_PROXY"
                ),
            )
        causes = list(_causes(error))
        if trouble := next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None):
            return self._failure(
                say("证书不可信或 TLS 握手失败", "the certificate is not trusted, or TLS failed")
                + f": {sanitize_line(str(trouble), 160)}",
                say(
                    "自签名的证书：export SSL_CERT_FILE=证书文件；明文服务：地址用 http://",
                    "for a certificate of your own: export SSL_CERT_FILE=FILE; for a plain service: http://",
                ),
            )
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return self._failure(
                say("找不到这个主机", "there is no such host"),
                say("检查地址的拼写和网络", "check the spelling of the address, and the network"),
            )
        if isinstance(error, httpx2.ConnectError):
            return self._failure(
                say("连不上", "cannot connect"),
                say(
                    "检查服务是否已启动、地址和端口是否正确",
                    "is the service running, are address and port right?",
                ),
                again=True,
            )
        return self.cut()

    def _timed_out(self, error: httpx2.TimeoutException) -> RequestError:
        if isinstance(error, httpx2.ConnectTimeout):
            return self._failure(
                say("连接超时", "no connection in time"),
                say("检查地址、端口和防火墙", "check address, port and firewall"),
            )
        return self._failure(
            say(f"{self.timeout:g} 秒没有回音", f"not a word for {self.timeout:g} seconds"),
            say(f"再试一次，或调高 {TIMEOUT}（秒）", f"try again, or raise {TIMEOUT} (seconds)"),
        )

    def cut(self) -> RequestError:
        """Tell that the connection ended before the answer did."""
        return self._failure(
            say("连接在回答结束前断开", "the connection ended before the answer did"),
            say("再问一次（/重答）；已收到的部分已保留", "ask again (/regen); what had come is kept"),
            again=True,
        )

    # ------------------------------------------------------------ an answer that is none

    def nonsense(self, found: str) -> RequestError:
        """Tell that what came is not what the API promises."""
        return self._failure(
            say("返回的不是 OpenAI 格式的数据", "what came is not of OpenAI's form")
            + f": {self._without_key(found, 80)}",
            say(
                f"检查地址，通常以 /v1 结尾：{EXAMPLE}",
                f"check the address, it mostly ends in /v1: {EXAMPLE}",
            ),
        )

    def server(self, message: str, code: int = 0) -> RequestError:
        """Tell what the server said of its own failure."""
        return self._failure(
            say("服务端出错", "the server failed") + self._said(message),
            say("稍后再试，或查看服务端日志", "try again later, or look at the server's log"),
            again=code in _WORTH_ANOTHER_TRY,
        )

    # ------------------------------------------------------------ a status that is not 200

    def refused(self, response: httpx2.Response, body: str) -> RequestError:
        """Tell what a status other than 200 means."""
        failure = self._refused(response, body)
        failure.status = response.status_code
        return failure

    def _refused(self, response: httpx2.Response, body: str) -> RequestError:
        status, message = response.status_code, _message_in(body)
        said = self._said(message)
        if 300 <= status < 400:
            return self._redirected(response.headers.get("location", ""))
        if status in (401, 403):
            return self._not_let_in(status, said)
        if status in (404, 405):
            return self._failure(
                say(f"没有这个模型或接口（{status}）", f"no such model or call ({status})") + said,
                say(
                    "检查地址（通常以 /v1 结尾）和 # 后面的模型名",
                    "check the address (it mostly ends in /v1) and the model's name behind #",
                ),
                kind=CheckpointError,
            )
        if status in (400, 413, 422):
            return self._not_taken(status, message)
        wait = seconds_to_wait(response.headers.get("retry-after"))
        if status == 429:
            what = say("请求太多或额度用完（429）", "too many requests, or no quota left (429)")
        else:
            what = say(f"服务端出错（{status}）", f"the server failed ({status})")
        remedy = (
            say(f"{wait:.0f} 秒后再试", f"try again in {wait:.0f} seconds")
            if wait
            else say("稍后再试", "try again later")
        )
        return self._failure(what + said, remedy, again=status in _WORTH_ANOTHER_TRY, retry_after=wait)

    def _not_let_in(self, status: int, said: str) -> RequestError:
        if self.key is None:
            what = say(f"需要密钥（{status}）", f"a key is needed ({status})")
            remedy = f"export {OURS}=…"
        else:
            name = self.key.variable
            what = say(f"不接受 {name} 里的密钥（{status}）", f"the key in {name} is not accepted ({status})")
            remedy = say(f"检查后重新设置：export {name}=…", f"check it and set it again: export {name}=…")
        return self._failure(what + said, remedy, kind=UsageError)

    def _not_taken(self, status: int, message: str) -> RequestError:
        plain = message.lower()
        too_long = "context" in plain and any(word in plain for word in ("length", "window", "token"))
        what = say(f"不接受这个请求（{status}）", f"the request was not taken ({status})") + self._said(
            message
        )
        remedy = (
            say(
                f"告诉 MedChat 它的上下文长度：export {CONTEXT}=词元数；或调低 --max-new-tokens",
                f"tell MedChat how long its context is: export {CONTEXT}=TOKENS; or lower --max-new-tokens",
            )
            if too_long
            else say(
                "去掉它不支持的设置（--top-k、--repetition-penalty、--seed），或换一个模型名",
                "leave out settings it does not know (--top-k, --repetition-penalty, --seed), or name another model",
            )
        )
        return self._failure(what, remedy, kind=UsageError, server_message=message)

    def _redirected(self, location: str) -> RequestError:
        target = sanitize_line(urlsplit(location).netloc or location, 100)
        return self._failure(
            say(
                f"要求转到 {target}；MedChat 不跟随跳转",
                f"it points to {target}; MedChat follows no redirect",
            ),
            say("如果信任那里，直接写那个地址", "if you trust that place, give its address"),
            kind=UsageError,
        )

    # ------------------------------------------------------------ wording

    def _said(self, message: str) -> str:
        return f": {self._without_key(message, 200)}" if message else ""

    def _without_key(self, text: str, longest: int) -> str:
        return sanitize_line(self.key.removed_from(text) if self.key else text, longest)

    def _failure(
        self,
        what: str,
        remedy: str,
        *,
        kind: type[MedchatError] = MedchatError,
        again: bool = False,
        retry_after: float | None = None,
        server_message: str = "",
    ) -> RequestError:
        error = kind(what, remedy, where=self.endpoint.authority)
        return RequestError(error, again=again, retry_after=retry_after, server_message=server_message)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _message_in(body: str) -> str:
    """Return the sentence in an error's body: OpenAI's form, FastAPI's, or a short plain text."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "" if "<" in body else body.strip()
    if isinstance(value, dict):
        value = value.get("error") or value.get("detail") or value.get("message") or value
    if isinstance(value, dict):
        value = value.get("message") or value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
