"""Checks on texts: whether a question is valid, and whether an answer repeats itself without end."""

from __future__ import annotations

from medchat.errors import UsageError
from medchat.language import say

#: A question longer than this (UTF-8 bytes) is refused before it is tokenised. `max_question_bytes` changes it.
MAX_QUESTION_BYTES = 1 << 20


def check_question(question: str, max_bytes: int = MAX_QUESTION_BYTES) -> None:
    """Raise UsageError for a question that is empty, over `max_bytes` of UTF-8, or not Unicode text."""
    if len(question) > max_bytes or (
        4 * len(question) > max_bytes and len(question.encode("utf-8", "replace")) > max_bytes
    ):
        raise UsageError(
            say(f"问题太长：超过 {max_bytes} 字节", f"the question is too long: over {max_bytes} bytes"),
            say(
                "请缩短问题，或调高配置项 max_question_bytes",
                "shorten it, or raise the setting max_question_bytes",
            ),
        )
    if not question.strip():
        raise UsageError(
            say("问题是空的", "the question is empty"),
            say('试试：medchat ask "头痛怎么办？"', 'try: medchat ask "头痛怎么办？"'),
        )
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            say(
                f"问题不是有效的 UTF-8 文本（第 {error.start + 1} 个字符）",
                f"the question is not valid UTF-8 (character {error.start + 1})",
            ),
            say("请用 UTF-8 编码保存后再试", "save it as UTF-8 and try again"),
        ) from None


def repeats_without_end(text: str) -> bool:
    """Whether `text` ends in one unit (1 to 80 characters) repeated at least six times over 240 characters."""
    tail = text[-480:]
    if len(tail) < 240:
        return False
    return any(tail.endswith(tail[-period:] * max(6, -(-240 // period))) for period in range(1, 81))
