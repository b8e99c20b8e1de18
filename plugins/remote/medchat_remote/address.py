"""The address of a remote model: `https://host/v1#model`, checked and normalised.

No network access: host names are not resolved here.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from medchat.plugin_kit import UsageError, sanitize_line, say

EXAMPLE = "--model http://127.0.0.1:8000/v1#MODEL"
#: API paths that users copy from examples with the address; they are removed.
_CALLS = ("/chat/completions", "/completions", "/models")
_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint and a model ("": the endpoint's only one)."""

    scheme: str
    authority: str
    host: str
    path: str
    model: str = ""

    @classmethod
    def parse(cls, value: str) -> Endpoint:
        """Return the endpoint that `value` names. The default path is `/v1`.

        Raises UsageError: not an http(s) URL, or one with user name, password or query (a key must not be in
        an address, which is shown and saved).
        """
        value = value.strip()
        if not value:
            raise UsageError(
                say("没有指定远程模型的地址", "no address of a remote model was given"),
                f"medchat chat --backbone remote {EXAMPLE}",
            )
        parts = _split(value)
        if parts.username is not None or parts.password is not None or parts.query:
            raise UsageError(
                say(
                    "地址里不能有用户名、密码或参数",
                    "an address may hold no user name, password or parameters",
                ),
                say(
                    "密钥请放进环境变量 MEDCHAT_REMOTE_KEY",
                    "put the key into the variable MEDCHAT_REMOTE_KEY",
                ),
                where=sanitize_line(parts.hostname or "", 100),
            )
        path = parts.path.rstrip("/")
        for call in _CALLS:
            path = path.removesuffix(call)
        return cls(parts.scheme, parts.netloc.lower(), parts.hostname or "", path or "/v1", parts.fragment)

    @property
    def base(self) -> str:
        """The URL without the model, to which the API's paths are appended."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def root(self) -> str:
        """The URL before `/v1`, where servers have their non-OpenAI calls."""
        return self.base.removesuffix("/v1")

    @property
    def address(self) -> str:
        """The full address, as for `--model`."""
        return f"{self.base}#{self.model}" if self.model else self.base

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    @property
    def on_this_machine(self) -> bool:
        """Whether the host is a loopback address, so that the text does not leave the machine."""
        return self.host == "localhost" or self.host.endswith(".localhost") or _is_loopback(self.host)


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, unclosed brackets
        usable = False
    if not usable or len(value) > _LONGEST or not value.isprintable() or " " in value:
        raise UsageError(
            say("不是可用的接口地址", "this is not the address of an endpoint"),
            say(f"要写成：{EXAMPLE}", f"write it like: {EXAMPLE}"),
            where=sanitize_line(value.rpartition("@")[2], 100),
        )
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
