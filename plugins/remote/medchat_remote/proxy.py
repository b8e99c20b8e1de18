"""Chooses the proxy for an endpoint, if any, so that it can be shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from medchat.plugin_kit import UsageError, sanitize_line, say
from medchat_remote.address import Endpoint

_SCHEMES = ("http", "https", "socks5", "socks5h")
#: Desktops write `socks`; these proxies use version 5.
_SOCKS_OF_ANY_VERSION = "socks"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A usable proxy. `variable` is the environment variable that sets it."""

    address: str
    variable: str

    @property
    def shown(self) -> str:
        """Its host and port, without a user name or password."""
        return _shown(self.address)


def proxy_for(endpoint: Endpoint) -> Proxy | None:
    """Return the proxy that the environment names for `endpoint`, or None.

    Never one for this machine, because the text would leave it. Raises UsageError for an unusable one.
    """
    if endpoint.on_this_machine or proxy_bypass(endpoint.authority) or proxy_bypass(endpoint.host):
        return None
    proxies = getproxies()
    kind = endpoint.scheme if proxies.get(endpoint.scheme) else "all"
    named = proxies.get(kind, "").strip()
    if not named:
        return None
    variable = f"{kind}_proxy"
    if not os.environ.get(variable) and os.environ.get(variable.upper()):
        variable = variable.upper()
    address = named if "://" in named else f"http://{named}"
    parts = _split(address, variable, endpoint)
    scheme = "socks5" if parts.scheme == _SOCKS_OF_ANY_VERSION else parts.scheme
    usable = f"{scheme}://{parts.netloc}"
    if scheme not in _SCHEMES:
        raise UsageError(
            say(f"不能使用 {scheme} 代理", f"a {scheme} proxy cannot be used"),
            _remedy(variable, endpoint),
            where=_shown(address),
        )
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise UsageError(
            say(
                f"{variable} 是 SOCKS 代理（按 {scheme}://{_shown(usable)} 使用），还缺 socksio",
                f"{variable} is a SOCKS proxy (used as {scheme}://{_shown(usable)}), which needs socksio",
            ),
            say('先运行 pip install "httpx2[socks]"；', 'first pip install "httpx2[socks]"; ')
            + _remedy(variable, endpoint),
            where=_shown(address),
        )
    return Proxy(usable, variable)


def _split(address: str, variable: str, endpoint: Endpoint) -> SplitResult:
    """Return the parts of a proxy's URL. Raises UsageError if it is invalid."""
    try:
        parts = urlsplit(address)
        # Reading the port checks it: one that is not a number raises.
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not address.isprintable() or " " in address:
        raise UsageError(
            say(
                f"{variable} 里的代理地址不对（主机或端口）", f"{variable} names no proxy: wrong host or port"
            ),
            _remedy(variable, endpoint),
            where=_shown(address),
        )
    return parts


def _remedy(variable: str, endpoint: Endpoint) -> str:
    return say(
        f"改成 http 代理：export {variable}=http://主机:端口；或不走代理：export NO_PROXY={endpoint.host}",
        f"name an http proxy: export {variable}=http://HOST:PORT; or go without: export NO_PROXY={endpoint.host}",
    )


def _shown(address: str) -> str:
    rest = address.partition("://")[2].rpartition("@")[2]
    return sanitize_line(rest.partition("/")[0], 100)
