"""What is looked at before a request is read: who may ask, from which page, in which form."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medchat.plugin_kit import say
from medchat_serve.api_error import ApiError

if TYPE_CHECKING:  # the command reads this module before it knows that the extra is installed
    from starlette.datastructures import Headers

_LOOPBACK_NAMES = ("localhost",)
#: What browsers may send from a page of an allowed origin; `*` does not cover Authorization.
_ALLOWED_HEADERS = "Authorization, *"
#: A host as browsers and clients name it: a name, with or without the dot of the root, or an address; a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s\[\]:/?#@\\]+?)\.?)(?::\d{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask.

    `hosts` are the names that the server answers to; `any_address` lets every numeric address pass (a page that
    makes its own name point here cannot use one). `origins` are those of other pages that may ask; `token`, where
    there is one, is what every request must bring.
    """

    hosts: frozenset[str] = frozenset(_LOOPBACK_NAMES)
    any_address: bool = False
    origins: Collection[str] = ()
    token: str = ""

    def check(self, headers: Headers, *, open_to_all: bool = False) -> None:
        """Raise ApiError if the request comes from elsewhere; `open_to_all`: it needs no token."""
        _check_framing(headers)
        self._check_host(headers.get("host", ""))
        self.origin_of(headers)
        if self.token and not open_to_all and not self._has_token(headers.get("authorization", "")):
            raise ApiError(
                401,
                say(
                    "令牌不对或没有令牌（Authorization: Bearer …）",
                    "no token, or another (Authorization: Bearer …)",
                ),
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def origin_of(self, headers: Headers) -> str:
        """Return the foreign origin that the request comes from, "" for our own page and programs.

        Raises ApiError for one that is not allowed, and for several.
        """
        stated, host = set(headers.getlist("origin")), headers.get("host", "")
        if not stated or stated in ({f"http://{host}"}, {f"https://{host}"}):
            return ""
        origin = stated.pop()
        if origin in self.origins and not stated:
            return origin
        raise ApiError(
            403,
            say(
                "其他网页的请求被拒绝；要允许它，启动时加 --origin 网页的来源",
                "a request from another page is refused; to allow it, start with --origin ORIGIN",
            ),
            "origin_not_allowed",
        )

    def cross_origin_headers(self, headers: Headers) -> dict[str, str]:
        """Return the headers that let an allowed page read the answer, none for others."""
        try:
            origin = self.origin_of(headers)
        except ApiError:
            return {}
        if not origin:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Expose-Headers": "X-MedChat-AIGC, X-MedChat-Disclaimer, Retry-After",
            "Vary": "Origin",
        }

    def _check_host(self, host: str) -> None:
        found = _HOST.fullmatch(host)
        name = (found[1] or found[2]).lower() if found else ""
        if name in self.hosts or is_loopback(name) or (self.any_address and _is_address(name)):
            return
        raise ApiError(
            403,
            say(
                "请求的主机名不是本服务的；要允许它，启动时加 --allow-host 主机名",
                "the request names a host that is not this server; to allow it, start with --allow-host NAME",
            ),
            "host_not_allowed",
        )

    def _has_token(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self.token.encode())
        return right and scheme.lower() == "bearer"


def _check_framing(headers: Headers) -> None:
    """Raise ApiError for a request of two lengths: a proxy in front may take its end to be elsewhere."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise ApiError(
            400,
            say(
                "Content-Length 和 Transfer-Encoding 只能有一个",
                "Content-Length and Transfer-Encoding exclude each other",
            ),
            "invalid_framing",
            headers={"Connection": "close"},
        )


def check_json(headers: Headers) -> None:
    """Raise ApiError for a body of another kind than JSON: a page elsewhere may send those unasked."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            say("Content-Type 应为 application/json", "Content-Type must be application/json"),
            "invalid_content_type",
        )


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own address, by number or as localhost."""
    try:
        return host in _LOOPBACK_NAMES or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
