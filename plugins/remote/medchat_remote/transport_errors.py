"""Errors of network, TLS and proxies, explained with what to do next."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpx2

from medchat.plugin_kit import UsageError, sanitize_line, say
from medchat_remote.errors import EndpointErrors, RequestError
from medchat_remote.limits import TIMEOUT
from medchat_remote.proxy import Proxy

#: The library's message for a response that does not begin with a letter, such as a TLS alert.
_NO_TEXT = "illegal request line"


_NO_CONNECTION = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)


def transport_error(error: httpx2.HTTPError, errors: EndpointErrors, timeout: float) -> RequestError:
    """Return the error to report for `error`. `timeout` is how many seconds the endpoint may be silent."""
    if isinstance(error, _NO_CONNECTION):
        failure = _no_connection(error, errors)
        failure.reached = False
        return failure
    if isinstance(error, httpx2.TimeoutException):
        return errors.make(
            say(f"{timeout:g} 秒没有响应", f"no response for {timeout:g} seconds"),
            say(f"再试一次，或调高 {TIMEOUT}（秒）", f"try again, or raise {TIMEOUT} (seconds)"),
        )
    if not isinstance(error, httpx2.RemoteProtocolError) or _cut_off(error):
        return errors.cut_off()
    if _NO_TEXT in str(error) and not errors.endpoint.encrypted:
        failure = errors.wants_encryption()
        failure.reached = False
        return failure
    return errors.malformed(str(error))


def _no_connection(error: httpx2.HTTPError, errors: EndpointErrors) -> RequestError:
    causes = list(_causes(error))
    if trouble := next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None):
        return errors.make(
            say("证书不可信或 TLS 握手失败", "the certificate is not trusted, or TLS failed")
            + say("：", ": ")
            + sanitize_line(str(trouble), 160),
            say(
                "自签名的证书：export SSL_CERT_FILE=证书文件；明文服务：地址用 http://",
                "for a certificate of your own: export SSL_CERT_FILE=FILE; for a plain service: http://",
            ),
        )
    if errors.proxy is not None or isinstance(error, httpx2.ProxyError):
        return _proxy_error(error, errors, errors.proxy)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        what = say("找不到这个主机", "there is no such host")
        remedy = say("检查地址的拼写和网络", "check the spelling of the address, and the network")
    elif isinstance(error, httpx2.ConnectTimeout):
        what = say("连接超时", "no connection in time")
        remedy = say("检查地址、端口和防火墙", "check address, port and firewall")
    else:
        what = say("无法连接", "cannot connect")
        remedy = say(
            "检查服务是否已启动、地址和端口是否正确", "is the service running, are address and port right?"
        )
        return errors.make(what, remedy, retryable=True)
    return errors.make(what, remedy)


def _proxy_error(error: httpx2.HTTPError, errors: EndpointErrors, proxy: Proxy | None) -> RequestError:
    shown, variable = (proxy.shown, proxy.variable) if proxy else ("", "")
    around = say(
        f"检查 {variable}；或不走代理：export NO_PROXY={errors.endpoint.host}",
        f"check {variable}, or go without: export NO_PROXY={errors.endpoint.host}",
    )
    if isinstance(error, httpx2.ProxyError):
        # Its message has the proxy's status, and may repeat the request.
        return errors.make(
            say(f"代理 {shown} 拒绝了连接", f"the proxy {shown} refused the connection")
            + errors.quoted(str(error)),
            around,
            kind=UsageError if "407" in str(error) else None,
        )
    return errors.make(
        say(f"经过代理 {shown} 无法连接", f"no connection by way of the proxy {shown}"),
        around,
        retryable=True,
    )


def _cut_off(error: httpx2.RemoteProtocolError) -> bool:
    """Whether the peer closed the connection, rather than violating HTTP."""
    words = str(error)
    return any(part in words for part in ("without sending", "peer closed", "incomplete", "disconnected"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
