"""Which fields of a record mean what, under the names that makers of data give them, and which of two counts.

Names are told apart without regard to case. Where two fields could both be the question, the answer or the
context, nothing is guessed: the record is refused with both names and the flag that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medchat.language import say

#: What a field is for. A conversation holds questions and answers both; `input` is Alpaca's, which has a place of
#: its own in a template; `context` is part of the question; `options` are those of a multiple choice.
Use = Literal["question", "answer", "input", "context", "conversation", "history", "system", "options", "id"]

#: The names of each use; records as they are published are the source. A name stands for one use alone.
NAMES: Mapping[Use, tuple[str, ...]] = {
    "question": (
        *("question", "instruction", "query", "prompt", "ask", "problem", "content", "questions"),
        *("问题", "提问", "问"),
    ),
    "answer": (
        *("answer", "output", "response", "completion", "summary", "target", "reply", "answers"),
        *("答案", "回答", "答复", "答"),
    ),
    "input": ("input",),
    "context": ("context", "background", "passage", "背景", "材料"),
    "conversation": (
        *("messages", "conversations", "conversation", "dialogue", "utterances", "qa_pairs", "对话"),
    ),
    "history": ("history", "历史"),
    "system": ("system", "system_prompt"),
    "options": ("options", "choices", "option", "选项"),
    "id": ("id",),
}
#: What counts for that use only where nothing of `NAMES` does: a context alone is the question.
WEAK_NAMES: Mapping[Use, tuple[str, ...]] = {
    "question": ("input", "context", "first_question"),
    "answer": ("reference",),
    "conversation": ("data", "dialog", "chat", "turns", "contents"),
    "id": ("sample_id",),
}
#: What data calls the side that asks, and the one that answers.
USER_SIDE = ("human", "user", "patient", "customer", "用户", "患者", "病人")
MODEL_SIDE = ("assistant", "gpt", "bot", "model", "ai", "doctor", "助手", "助理", "医生")
#: Two fields named after the two sides. Each name means something else elsewhere (who asked, where from, an option of a
#: multiple choice): they count together, and where nothing is a question by its name alone.
_SIDES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (USER_SIDE, MODEL_SIDE),
    (("source",), ("target",)),
    (("src",), ("tgt",)),
    (("q",), ("a",)),
)
#: Beside these letters `a` is an option of a multiple choice.
_OPTION = "b"
_USES = {name: use for use, names in NAMES.items() for name in names}
_WEAK_USES = {name: use for use, names in WEAK_NAMES.items() for name in names}
#: The uses for which a user names a field.
_CHOSEN = frozenset(("question", "answer", "context"))
#: Those of a conversation whose value must be a list; under other names another value is no conversation.
_ALWAYS_CONVERSATIONS = ("messages", "conversations", "qa_pairs")


class RecordError(ValueError):
    """The record asks nothing that can be understood; the message says why."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        #: What to do, "" for correcting it.
        self.remedy: str = remedy


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """The fields a user has named for a use, whatever the tables say; "" leaves it to them."""

    question: str = ""
    answer: str = ""
    context: str = ""

    def knows(self, name: str) -> bool:
        """Whether a field of that name may be the question, the answer or what is beside it."""
        return is_field(name) or name.strip().casefold() in self.folded()

    def folded(self) -> frozenset[str]:
        """Return the names as they are compared."""
        return frozenset(
            name.strip().casefold() for name in (self.question, self.answer, self.context) if name
        )


#: Nothing is named: the tables decide.
NO_CHOICE = FieldChoice()


def use_name(use: str) -> str:
    """Return what a use is called in the interface language."""
    return {
        "question": say("问题", "question"),
        "answer": say("答案", "answer"),
        "input": say("输入", "input"),
        "context": say("背景", "context"),
        "conversation": say("对话", "conversation"),
        "history": say("之前的对话", "history"),
        "system": say("系统提示", "system text"),
        "options": say("选项", "options"),
        "id": say("编号", "id"),
    }[use]


def is_field(name: str) -> bool:
    """Whether a record's field of that name may be its question, answer or context."""
    folded = name.strip().casefold()
    return _USES.get(folded) in ("question", "answer", "input", "context") or folded in WEAK_NAMES["answer"]


def sides_of(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the two fields of a record in which each side of a conversation says a text, None for others."""
    return sides_named(name for name, value in record.items() if isinstance(value, str) and value.strip())


def sides_named(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the two of the names that are those of the two sides; None if a side has none or several."""
    said = {name.strip().casefold(): name for name in names}
    for asking, answering in _SIDES:
        asked = [said[name] for name in asking if name in said]
        answers = [said[name] for name in answering if name in said]
        if len(asked) == len(answers) == 1 and not (answering == ("a",) and _OPTION in said):
            return asked[0], answers[0]
    return None


def is_empty(value: Any) -> bool:
    """Whether a field holds nothing: none, blank text, an empty list or object."""
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


@dataclass
class Fields:
    """The fields of one record, taken out by use. What is never taken is unused."""

    record: Mapping[str, Any]
    choice: FieldChoice

    def __post_init__(self) -> None:
        self.used: list[tuple[Use, str]] = []
        self._by_use: dict[Use, list[str]] = {}
        self._weak: dict[Use, list[str]] = {}
        named = self.choice.folded() if self.choice is not NO_CHOICE else ()
        for name, value in self.record.items():
            if is_empty(value):
                continue
            folded = name.strip().casefold()
            for uses, found in ((_USES, self._by_use), (_WEAK_USES, self._weak)):
                use = uses.get(folded)
                if use == "conversation":
                    is_one = isinstance(value, list) or folded in _ALWAYS_CONVERSATIONS
                else:
                    is_one = folded not in named  # what the user has named is nothing else
                if use and is_one:
                    found.setdefault(use, []).append(name)

    def find(self, use: Use) -> str | None:
        """Return the name of the field for that use, None if there is none. Raises RecordError for two."""
        if chosen := self.chosen(use):
            return self._chosen(use, chosen)
        if use not in self._by_use and use not in self._weak:
            return None
        taken = {name for _, name in self.used}
        left = [name for name in self.strong(use) if name not in taken]
        if len(left) > 1:
            raise ambiguous(use, left)
        order = WEAK_NAMES.get(use, ())
        weak = sorted(self._weak.get(use, []), key=lambda name: order.index(name.strip().casefold()))
        return next(iter((*left, *(name for name in weak if name not in taken))), None)

    def chosen(self, use: Use) -> str:
        """Return the name that the user has given for that use, "" for none."""
        return str(getattr(self.choice, use)) if use in _CHOSEN else ""

    def take(self, use: Use, name: str | None) -> Any:
        """Return the value of the field and note what it was used for; None for no name."""
        if name is None:
            return None
        self.used.append((use, name))
        return self.record[name]

    def strong(self, use: Use) -> list[str]:
        """Return the names that are always for that use."""
        return self._by_use.get(use, [])

    def lacks(self, *uses: Use) -> bool:
        """Whether no field has a name of any of these uses."""
        return not any(use in self._by_use or use in self._weak for use in uses)

    def unused(self) -> dict[str, Any]:
        """Return the fields that nothing was made of; empty ones of known names are none."""
        taken = {name for _, name in self.used}
        return {
            name: value
            for name, value in self.record.items()
            if name not in taken and not (is_empty(value) and _is_known(name))
        }

    def _chosen(self, use: Use, chosen: str) -> str | None:
        names = [name for name in self.record if name.strip().casefold() == chosen.strip().casefold()]
        name = chosen if chosen in self.record else names[0] if names else ""
        if name and not is_empty(self.record[name]):
            return name
        if use == "context":
            return None
        flag, there = f"--{use}-field {chosen}", ", ".join(self.record)
        raise RecordError(
            say(
                f"没有字段 {chosen}（{flag}）；有的是：{there}",
                f"no field {chosen} ({flag}); there are: {there}",
            )
            if not name
            else say(f"{name} 是空的", f"{name} is empty")
        )


def _is_known(name: str) -> bool:
    folded = name.strip().casefold()
    return folded in _USES or folded in _WEAK_USES


def ambiguous(use: Use, names: Iterable[str]) -> RecordError:
    """Return the error for fields that could all be for that use."""
    flag = {"conversation": "question"}.get(use, use)
    both = list(names)
    listed = say("、", ", ").join(both)
    return RecordError(
        say(f"{listed} 都可能是{use_name(flag)}", f"{listed} could each be the {use_name(flag)}"),
        say(" 或 ", " or ").join(f"--{flag}-field {name}" for name in both),
    )
