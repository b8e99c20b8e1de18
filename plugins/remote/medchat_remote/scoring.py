"""Log-probabilities of a given answer, from servers that echo a prompt with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medchat.plugin_kit import UsageError, say
from medchat_remote.connection import Connection
from medchat_remote.errors import RequestError


async def answer_scores(connection: Connection, model: str, prompt: str, answer: str) -> tuple[float, ...]:
    """Return the log-probability of each token of `answer` after `prompt`.

    A token that spans the end of the prompt counts as the answer's. Raises RequestError, and UsageError if
    the server does not echo.
    """
    body = {
        "model": model,
        "prompt": prompt + answer,
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,  # several servers reject 0; the generated token is ignored
        "temperature": 0,
    }
    try:
        found = await connection.fetch("POST", connection.endpoint.base + "/completions", body)
    except RequestError as error:
        if error.server_message:
            raise _not_given() from None
        raise
    return _read(found, len(prompt), len(prompt) + len(answer))


def _read(found: Any, start: int, end: int) -> tuple[float, ...]:
    try:
        logprobs: Mapping[str, Any] = found["choices"][0]["logprobs"]
        tokens, scores = logprobs["tokens"], logprobs["token_logprobs"]
        offsets = logprobs["text_offset"]
        spans = [
            (offset, offset + len(token), score)
            for token, offset, score in zip(tokens, offsets, scores, strict=True)
        ]
    except (KeyError, IndexError, TypeError, ValueError):
        raise _not_given() from None
    wanted = [score for first, last, score in spans if last > start and first < end]
    if not spans or spans[0][0] >= start > 0 or not all(isinstance(score, (int, float)) for score in wanted):
        raise _not_given()  # the prompt is not echoed: these would be those of the generated text
    return tuple(float(score) for score in wanted)


def _not_given() -> UsageError:
    return UsageError(
        say("这个接口不给出已有文本的概率", "this endpoint does not return probabilities for a given text"),
        say(
            "换用 vLLM 或 SGLang 的接口，或本机的权重",
            "use one of vLLM or SGLang, or weights on this machine",
        ),
    )
