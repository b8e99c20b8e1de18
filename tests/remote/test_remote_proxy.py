"""Proxies between here and an endpoint: which is used, which cannot be, and what is said of one that fails."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from medchat_remote import proxy as proxy_module
from medchat_remote.address import Endpoint
from medchat_remote.proxy import Proxy, proxy_for
from openai_server import free_port
from remote_models import PROXIES, Load

from medchat.errors import MedchatError, UsageError

pytest_plugins = ("remote_models",)

LOCAL = Endpoint.parse("http://127.0.0.1:8000/v1")
FAR = Endpoint.parse("https://api.example.com/v1#m")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


def test_a_proxy_is_used_for_other_hosts_and_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for(FAR) is None
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert proxy_for(FAR) == Proxy("http://proxy.example:3128", "https_proxy")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert proxy_for(LOCAL) is None
    monkeypatch.setenv("no_proxy", "example.com")
    assert proxy_for(FAR) is None


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("HTTP://proxy.example:3128/", "http://proxy.example:3128"),
        ("https://proxy.example", "https://proxy.example"),
        (" http://[fd00::1]:3128 ", "http://[fd00::1]:3128"),
        ("http://me:geheim@proxy.example:70", "http://me:geheim@proxy.example:70"),
    ],
)
def test_proxies_come_to_one_proper_form_and_are_shown_without_a_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, address: str
) -> None:
    monkeypatch.setenv(variable, value)
    proxy = proxy_for(FAR)
    assert proxy == Proxy(address, variable)
    assert "geheim" not in proxy.shown and "proxy.example" in proxy.shown + "proxy.example" * ("[" in value)


@pytest.mark.parametrize(
    "value",
    ["http://proxy.example:port", "http://proxy.example:99999", "http://proxy.example:0", "http://:3128", "http://",
     "http://[::1:3128", "http://proxy.example:31 28", "gopher://me:geheim@proxy.example:70", "socks4://proxy.example",
     "http://me:ge/heim@proxy.example:70", "http://me:ge#heim@proxy.example:70", "http://me:geheim@proxy.example:x"],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_is_named_with_its_variable_and_no_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError) as caught:
        proxy_for(FAR)
    error = caught.value
    assert "export HTTPS_PROXY=http://" in error.remedy and "NO_PROXY=api.example.com" in error.remedy
    assert "heim" not in f"{error.what} {error.remedy} {error.where}"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("socks://127.0.0.1:7890/", "socks5://127.0.0.1:7890"),
        ("SOCKS5://127.0.0.1:7890", "socks5://127.0.0.1:7890"),
        ("socks5h://127.0.0.1:7890", "socks5h://127.0.0.1:7890"),
    ],
)
def test_what_a_desktop_calls_socks_is_version_five_and_the_remedy_suffices(
    monkeypatch: pytest.MonkeyPatch, value: str, address: str
) -> None:
    monkeypatch.setenv("all_proxy", value)
    monkeypatch.setattr(proxy_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        proxy_for(FAR)
    assert address in caught.value.what and 'pip install "httpx2[socks]"' in caught.value.remedy
    monkeypatch.setattr(proxy_module, "find_spec", lambda name: object())  # as after that command
    assert proxy_for(FAR) == Proxy(address, "all_proxy")


# ---------------------------------------------------------------- proxies that fail


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """Run a proxy that gives every request the same answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_nobody_at_the_proxy_is_not_taken_for_nobody_at_the_endpoint(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"127.0.0.1:{free_port()}"
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", place)
        with pytest.raises(MedchatError) as caught:
            load(f"{scheme}://nohost.invalid/v1#m")
        assert f"代理 {place}" in caught.value.what
        assert f"{scheme}_proxy" in caught.value.remedy and "NO_PROXY=nohost.invalid" in caught.value.remedy


@pytest.mark.parametrize(("status", "code"), [("403 Forbidden", 1), ("407 Proxy Authentication Required", 2)])
def test_a_proxy_that_refuses_is_named(
    load: Load, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    with answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(MedchatError) as caught:
            load("https://nohost.invalid/v1#m")
    assert status[:3] in caught.value.what and proxy.removeprefix("http://") in caught.value.what
    assert caught.value.exit_code == code and "NO_PROXY=nohost.invalid" in caught.value.remedy


def test_a_proxy_that_wants_a_login_says_so_for_plain_endpoints_too(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(UsageError, match="407") as caught:
            load("http://nohost.invalid/v1")
    assert "代理" in caught.value.what and "export http_proxy=http://" in caught.value.remedy


def test_a_gateway_error_may_be_the_proxys(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>"
    with answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(MedchatError, match="502 Bad Gateway") as caught:
            load("http://nohost.invalid/v1")
    assert f"代理 {proxy.removeprefix('http://')}" in caught.value.remedy
