"""An endpoint that writes data from the prompts of `medchat data build`, and fails at it in every way.

What it does with a prompt depends on the prompt alone and on how often it was asked, so that any two runs end alike.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable

from openai_server import Asked, OpenAIServer, Reply, refusal

#: What is wrong with an answer for good, with the code of the reject that it becomes.
SPOILT: dict[str, Callable[[str], str]] = {
    "analysis": lambda form: f"先分析一下：这里要改写问题。\n{form}",
    "fence": lambda form: f"```json\n{form}\n```",
    "trailing": lambda form: f"{form}\n希望对您有帮助！",
    "other-json": lambda form: json.dumps({"instruction": "问", "output": "答"}),
    "broken": lambda form: form[:-3],
    "list": lambda form: f"[{form}]",
}
#: What is wrong with the first tries only.
PASSING: dict[str, Reply] = {
    "429": refusal(429, "slow down", retry_after="0"),
    "500": refusal(500, "broken"),
    "cut": Reply(pieces=('{"question"',), cut=True),
    "reset": Reply(pieces=("{",), reset=True),
}
_KINDS = ("fine", "fine", "fine", "slow", *PASSING, *SPOILT)


def kind_of(prompt: str) -> str:
    """Return what the endpoint does with a prompt."""
    return _KINDS[int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % len(_KINDS)]


def written(prompt: str) -> str:
    """Return the form that a prompt of `build kg` asks for: its draft, in hardly other words."""
    found = dict(re.findall(r"^底稿(问题|回答)：(.*)$", prompt, flags=re.MULTILINE))
    return json.dumps({"question": f"请问，{found['问题']}", "answer": found["回答"]}, ensure_ascii=False)


class FaultyWriter:
    """What a server answers with: `server.reply_to = FaultyWriter(server)`. `times` are when requests arrived."""

    def __init__(self, server: OpenAIServer, write: Callable[[str], str] = written) -> None:
        self._server, self._write = server, write
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []

    def __call__(self, asked: Asked) -> Reply:
        prompt = asked.body["messages"][-1]["content"]
        with self._server.lock:
            self.asked[prompt] += 1
            self.times.append(time.monotonic())
            tries = self.asked[prompt]
        kind, form = kind_of(prompt), self._write(prompt)
        if kind in PASSING and tries == 1:
            return PASSING[kind]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(form)}
        pieces = (0.05, form) if kind == "slow" else (SPOILT.get(kind, str)(form),)
        return Reply(pieces=pieces, usage=usage)
