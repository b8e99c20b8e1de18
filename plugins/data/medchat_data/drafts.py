"""What is taken of a model's words: the form that was asked for, or nothing.

Nothing is repaired: an answer with anything around the form is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medchat.plugin_kit import say
from medchat_data.knowledge import TURN_MARK
from medchat_data.prompt_forms import OPEN, RIGHT, WRONG, Sample
from medchat_data.sample_prompt import help_numbers
from medchat_data.verifying import mentions_word, normalised

#: The longest text that is taken for a question or an answer, in characters.
_LONGEST = 4000


@dataclass(frozen=True, slots=True)
class Draft:
    """A question and its answer, or the `code` of what is wrong with what was written, which is then in `written`.

    `origin` is what provenance says of the writing.
    """

    question: str = ""
    answer: str = ""
    code: str = ""
    written: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


def read_draft(written: str, sample: Sample) -> Draft:
    """Return what a model wrote of a sample, or the code of the first thing that is wrong with it."""
    texts = read_texts(written, ("question", "answer"))
    if texts is None:
        return Draft(code="not-the-form", written=written)
    question, answer = texts
    code = ""
    if any(TURN_MARK.search(text) for text in texts):
        code = "turn-mark"
    elif sample.verdict and not _says(sample.verdict, answer):
        code = "verdict-changed"
    elif any(not mentions_word(answer, number) for number in help_numbers(sample.answer)):
        code = "help-left-out"
    return Draft(question, answer, code, written if code else "")


def read_texts(written: str, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the texts of a JSON object that has just those names, in their order; None for anything else.

    Blanks may stand around it. A text is neither empty nor longer than 4000 characters.
    """
    value = read_form(written, names)
    if value is None:
        return None
    texts = [value[name].strip() if isinstance(value[name], str) else "" for name in names]
    return tuple(texts) if all(_is_text(text) for text in texts) else None


def read_form(written: str, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the JSON object that a model wrote, if it has just those names and nothing but blanks stands around it."""
    try:
        value = json.loads(written, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and set(value) == set(names) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object. Raises ValueError where a name stands in it twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _is_text(text: str) -> bool:
    valid_unicode = not any("\ud800" <= character <= "\udfff" for character in text)
    return bool(normalised(text)) and len(text) <= _LONGEST and valid_unicode


def _says(verdict: str, answer: str) -> bool:
    """Whether the first sentence gives that verdict and no other."""
    first = re.split("[。！？!?\n]", answer, maxsplit=1)[0]
    others = {RIGHT: ("不是", WRONG, OPEN), WRONG: (OPEN,), OPEN: ()}[verdict]
    return (first.startswith(verdict) if verdict == RIGHT else verdict in first) and not any(
        other in first for other in others
    )


def draft_reasons() -> Mapping[str, str]:
    """Return why a draft is rejected, by code, in the interface language."""
    return {
        "not-the-form": say(
            "写出来的不是要求的 JSON 对象，或前后多了别的文字",
            "what was written is not the JSON object asked for, or has other text around it",
        ),
        "cut-off": say(
            "写到词元上限被截断（调高 --max-new-tokens）",
            "cut off at the limit of tokens (raise --max-new-tokens)",
        ),
        "turn-mark": say(
            "里面有对话标记，会多出一轮对话", "it has a mark that would add a turn to a dialogue"
        ),
        "verdict-changed": say(
            "第一句的判断与知识不符", "its first sentence judges otherwise than the knowledge"
        ),
        "help-left-out": say("漏掉了求助电话", "it leaves out the number to call for help"),
        "call-failed": say("调用失败", "the call failed"),
    }
