"""The API key for an endpoint: only from the environment, and only for hosts it is meant for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from medchat.plugin_kit import UsageError, say
from medchat_remote.address import Endpoint

OURS, OPENAI = "MEDCHAT_REMOTE_KEY", "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A secret and its variable. Its value is in no `repr`, message or file of ours."""

    value: str = field(repr=False)
    variable: str


def find_key(endpoint: Endpoint, environment: Mapping[str, str]) -> ApiKey | None:
    """Return the key to send to `endpoint`, or None.

    `MEDCHAT_REMOTE_KEY` is sent to any endpoint that the user names. `OPENAI_API_KEY`, which is often set for
    another program, is sent only to OpenAI, to this machine, and to the host in `OPENAI_BASE_URL`. Raises
    UsageError, without the value, for one that is invalid in a header.
    """
    for variable in (OURS, OPENAI):
        value = environment.get(variable, "").strip()
        if not value or (variable == OPENAI and not _is_meant_for(endpoint, environment)):
            continue
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise UsageError(
                say(
                    f"{variable} 的值不能用作密钥：含有空格、换行或非 ASCII 字符",
                    f"the value of {variable} is not a key: it contains a space, a line end or a non-ASCII character",
                ),
                say(f"重新设置：export {variable}=…", f"set it again: export {variable}=…"),
            )
        return ApiKey(value, variable)
    return None


def _is_meant_for(endpoint: Endpoint, environment: Mapping[str, str]) -> bool:
    if endpoint.on_this_machine or (endpoint.encrypted and _under(endpoint.host, "openai.com")):
        return True
    try:
        return urlsplit(environment.get("OPENAI_BASE_URL", "")).hostname == endpoint.host
    except ValueError:
        return False


def _under(host: str, domain: str) -> bool:
    return host == domain or host.endswith("." + domain)
