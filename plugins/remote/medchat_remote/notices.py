"""The notices before the first question: where the text is sent, and who can read it."""

from __future__ import annotations

from medchat.plugin_kit import sanitize_line, say
from medchat_remote.address import Endpoint
from medchat_remote.key import ApiKey
from medchat_remote.proxy import Proxy


def destination_notices(endpoint: Endpoint, key: ApiKey | None, proxy: Proxy | None) -> tuple[str, ...]:
    """Return one line for the destination, and one for each further risk."""
    host = sanitize_line(endpoint.authority, 100)
    if endpoint.on_this_machine:
        return (
            say(
                f"！问题和对话会发送到本机的服务 {host}；它是否再转发到别处，MedChat 无从得知",
                f"! questions and history are sent to a service on this machine, {host};"
                " whether it passes them on, MedChat cannot know",
            ),
        )
    lines = [
        say(
            f"！问题和对话会离开本机，发送到 {host}。请勿输入姓名、证件号等能认出病人的信息",
            f"! questions and history leave this machine and go to {host}."
            " Type nothing that identifies a patient (names, numbers)",
        )
    ]
    if not endpoint.encrypted:
        secret = say("、密钥", ", the key") if key else ""
        lines.append(
            say(
                f"！连接没有加密（http）：途中任何人都能读到问题、回答{secret}。请改用 https",
                f"! the connection is not encrypted (http): anyone on the way can read the questions, the answers"
                f"{secret}. Use https",
            )
        )
    if proxy is not None:
        lines.append(say(f"！经过代理 {proxy.shown}", f"! by way of the proxy {proxy.shown}"))
    return tuple(lines)
