"""Errors of response bodies: too long, compressed, in another encoding, or malformed."""

from __future__ import annotations

from medchat.plugin_kit import say
from medchat_remote.body_text import ForeignEncodingError
from medchat_remote.chunks import MalformedPayloadError
from medchat_remote.errors import EndpointErrors, RequestError


class OverBudgetError(Exception):
    """The body exceeds `budget` bytes."""

    def __init__(self, budget: int) -> None:
        super().__init__(str(budget))
        self.budget = budget


def body_error(error: OverBudgetError | MalformedPayloadError, errors: EndpointErrors) -> RequestError:
    """Return the error to report for a body whose reading raised `error`."""
    if isinstance(error, OverBudgetError):
        return _too_large(error.budget, errors)
    if isinstance(error, ForeignEncodingError):
        return _in_encoding(error.encoding, errors)
    return errors.malformed(str(error))


def compressed(encoding: str, errors: EndpointErrors) -> RequestError:
    """Return the error for a body that is compressed although that was not requested."""
    shown = errors.shown(encoding, 40)
    return errors.make(
        say(
            f"返回的数据经过压缩（{shown}），MedChat 没有要求压缩，也不解压",
            f"the answer is compressed ({shown}), which was not asked for and is not unpacked",
        ),
        say(
            "在服务端或中间的网关关闭压缩（nginx：gzip off）",
            "turn compression off at the server or the gateway before it (nginx: gzip off)",
        ),
    )


def _too_large(budget: int, errors: EndpointErrors) -> RequestError:
    size = f"{budget / (1 << 20):.0f} MiB"
    return errors.make(
        say(f"返回的数据超过 {size}，已断开", f"more than {size} were received; the connection is closed"),
        say(
            "查看服务端日志；回答本来就很长时调高 --max-new-tokens",
            "look at the server's log; if the answer really is that long, raise --max-new-tokens",
        ),
    )


def _in_encoding(encoding: str, errors: EndpointErrors) -> RequestError:
    remedy = say("让服务端以 UTF-8 输出", "have the server write UTF-8")
    if encoding == "GBK":
        remedy += say("，或在 Content-Type 里写明 charset=GBK", ", or state charset=GBK in its Content-Type")
    return errors.make(
        say(
            f"返回的文字不是 UTF-8 编码，看起来是 {encoding}",
            f"the answer is not in UTF-8; it looks like {encoding}",
        ),
        remedy,
    )
