"""Requests that no person makes: chat clients have a model write titles, tags and summaries of a conversation.

What these come to is shown as a title or sent along as history, where an emergency notice is out of place; the notice
went to the person with the question itself. It stays in the `medchat` field all the same. A request counts as one
of these only where its last text or its system text begins as the clients' own instructions do: docs/serve.md,
"Background requests".
"""

from __future__ import annotations

import re

#: How the instructions of Open WebUI (titles, tags, follow-ups, queries) and NextChat (titles, summaries) begin.
_INSTRUCTIONS = re.compile(
    r"\s*(?:"
    r"###\s*Task:\s"
    r"|使用四到五个字直接返回这句话的简要主题"
    r"|简要总结一下对话内容，用作后续的上下文提示"
    r"|Please generate a four to five word title summarizing our conversation"
    r"|Summarize the discussion briefly in 200 words or less to use as a prompt"
    r"|Create a concise, 3-5 word phrase"
    r")"
)
#: How the system texts of LobeChat's titles and translations of titles begin.
_SYSTEM = re.compile(
    r"\s*(?:"
    r"你是一名擅长会话的助理，你需要将用户的会话总结为"
    r"|You are (?:an assistant who is good at|a professional) conversation summar"
    r")"
)


def is_background(question: str, system: str) -> bool:
    """Whether the request is a client's own: it asks for a title, tags or a summary."""
    return bool(_INSTRUCTIONS.match(question) or _SYSTEM.match(system))
