"""Which proxy, if any, stands between here and an endpoint: chosen here, so that the user can be told."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat_remote.address import Endpoint

_SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_for(endpoint: Endpoint) -> str | None:
    """Return the address of the proxy that the environment names for `endpoint`, or None.

    Never one for this machine: the words would leave it. Raises UsageError for a kind that cannot be used.
    """
    if endpoint.on_this_machine or proxy_bypass(endpoint.authority) or proxy_bypass(endpoint.host):
        return None
    proxies = getproxies()
    named = proxies.get(endpoint.scheme) or proxies.get("all") or ""
    if not named:
        return None
    proxy = named if "://" in named else f"http://{named}"
    scheme = urlsplit(proxy).scheme
    if scheme not in _SCHEMES or (scheme.startswith("socks") and find_spec("socksio") is None):
        raise UsageError(
            say(f"用不了 {scheme} 代理", f"a {scheme} proxy cannot be used"),
            say(
                f'安装 socksio：pip install "httpx2[socks]"；或不走代理：export NO_PROXY={endpoint.host}',
                f'pip install "httpx2[socks]", or go without: export NO_PROXY={endpoint.host}',
            ),
            where=shown(proxy),
        )
    return proxy


def shown(proxy: str) -> str:
    """Return the proxy's host and port, without a user name or password."""
    return sanitize_line(urlsplit(proxy).netloc.rpartition("@")[2], 100)
