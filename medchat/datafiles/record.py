"""What one record of a data file asks and answers: which fields it is read from, and which it is not.

The fields are those of `medchat.datafiles.fields`, a conversation is read by `medchat.datafiles.conversations`.
A text in the literature data's own dialogue form (` <user>: … <bot>: … <user>: …`) is taken apart into earlier
turns and a last question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from medchat.api import Turn
from medchat.datafiles.conversations import Spoken, is_message, parse_case, parse_conversation
from medchat.datafiles.fields import (
    NAMES,
    NO_CHOICE,
    FieldChoice,
    Fields,
    RecordError,
    Use,
    ambiguous,
    is_empty,
    sides_of,
)
from medchat.datafiles.forms import form_of, split_dialogue, without_prompt
from medchat.datafiles.options import holds_options, lettered_columns, options_text
from medchat.language import say

#: The implicit label of generated content and the mark beside it, which exported sessions carry.
_LABEL = ("AIGC", "disclaimer")


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """What a record asks. `text` is the question as the file has it, `last` what is asked after `turns`.

    Both have the context before them and the options of a multiple choice under them.

    A first turn without a question is what the assistant said first. `is_dialogue` says that `text` is itself
    a dialogue with all of the turns in it; `wordings` are other ways to ask the same. `unlearned` are the
    numbers of the answers (of `turns` from 0, then of `reference`) that are context alone. `used` pairs a use
    with the field that it was read from, `extra` holds the fields that were not, `unused` names those of them
    that hold something, and keys of messages.
    """

    text: str
    last: str
    input: str = ""
    turns: tuple[Turn, ...] = ()
    is_dialogue: bool = False
    system: str = ""
    reference: Any = None
    id: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    form: str = ""
    wordings: tuple[str, ...] = ()
    unlearned: frozenset[int] = frozenset()
    used: tuple[tuple[Use, str], ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def is_conversation(self) -> bool:
        """Whether each of its turns has an answer to learn."""
        return any(use == "conversation" for use, _ in self.used)


def parse_record(value: Any, choice: FieldChoice = NO_CHOICE) -> QuestionRecord:
    """Return what the JSON value asks; the fields of `choice` count over all others. Raises RecordError."""
    if isinstance(value, str):
        return text_value(value)
    if _holds_messages(value):
        value = {"conversation": value}
    if not isinstance(value, dict):
        raise RecordError(say("应当是一个 JSON 对象或文本", "must be a JSON object or a text"))
    fields = Fields(value, choice)
    if is_message(value) and len(fields.strong("question")) < 2 and not fields.strong("answer"):
        raise RecordError(
            say("这是对话里的一条消息，不是一条记录", "this is one message of a conversation, not a record"),
            say(
                '把一段对话的消息放进一个列表：{"messages": […]}，每行一段对话',
                'put the messages of a conversation into one list: {"messages": […]}, a conversation a line',
            ),
        )
    if not choice.question and fields.lacks("question", "conversation") and (sides := sides_of(value)):
        fields = Fields(value, replace(choice, question=sides[0], answer=choice.answer or sides[1]))
    name = _conversation_field(fields)
    asked = _from_fields(fields) if name is None else _from_conversation(fields, name)
    identifier = fields.take("id", fields.find("id"))
    extra = fields.unused()
    ours = _LABEL if isinstance(extra.get("AIGC"), Mapping) else ()
    unused = tuple(name for name, left in extra.items() if not is_empty(left) and name not in ours)
    return replace(
        asked,
        id=identifier,
        extra=extra,
        form=form_of(
            [name for _, name in fields.used], is_conversation=name is not None, is_dialogue=asked.is_dialogue
        ),
        used=tuple(fields.used),
        unused=(*unused, *asked.unused),
    )


def text_value(text: str) -> QuestionRecord:
    """Return what a text asks: itself, or the last question of the dialogue in it. Raises RecordError."""
    asked = _from_text(text)
    _not_blank(asked.last)
    return asked


def _from_text(text: str) -> QuestionRecord:
    said = split_dialogue(_not_blank(text))
    if not said:
        return QuestionRecord(text, text)
    turns = tuple(Turn(said[number], said[number + 1]) for number in range(0, len(said) - 1, 2))
    return QuestionRecord(text, said[-1], turns=turns, is_dialogue=True)


def _conversation_field(fields: Fields) -> str | None:
    """Return the field that holds the whole conversation, None for a record of separate fields."""
    chosen = fields.find("question") if fields.chosen("question") else None
    if chosen is not None:
        in_wordings = chosen.strip().casefold() == "questions"
        return chosen if isinstance(fields.record[chosen], list) and not in_wordings else None
    questions, conversations = fields.strong("question"), fields.strong("conversation")
    if len(questions) == 1 and not conversations and _holds_messages(fields.record[questions[0]]):
        return questions[0]  # TRL's prompts: all that was said before the answer
    if questions and conversations:
        raise ambiguous("question", (*questions, *conversations))
    if questions or (not conversations and fields.find("question")):
        return None
    return fields.find("conversation")


def _holds_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def _from_conversation(fields: Fields, name: str) -> QuestionRecord:
    is_case = name.strip().casefold() == "qa_pairs"
    said = fields.take("conversation", name)
    spoken = parse_case(name, said, _case_text(fields)) if is_case else parse_conversation(name, said)
    if not spoken.last:
        raise RecordError(say(f"{name} 里没有用户的问题", f"{name} holds no question of the user"))
    reference: Any = spoken.answer
    chosen, answers = fields.chosen("answer"), fields.strong("answer")
    if reference is not None and answers and not chosen:
        raise ambiguous("answer", (name, *answers))
    if chosen.strip().casefold() != name.strip().casefold() and (chosen or reference is None):
        reference = _answer(fields)
    return QuestionRecord(
        spoken.last,
        spoken.last,
        turns=spoken.turns,
        system=spoken.system or _optional(fields, "system"),
        reference=reference,
        unlearned=spoken.unlearned,
        unused=spoken.unused,
    )


def _case_text(fields: Fields) -> str:
    """Return the case that questions and answers are about: CMB-Clin has it in `description`."""
    described = (name for name, value in fields.record.items() if not is_empty(value))
    name = fields.find("context") or next(
        (one for one in described if one.strip().casefold() == "description"), None
    )
    return "" if name is None else _text(fields.take("context", name), name)


def _from_fields(fields: Fields) -> QuestionRecord:
    name = fields.find("question")
    if name is None:
        raise _no_question(fields)
    text, *wordings = _wordings(name, fields.take("question", name))
    asked = _from_text(without_prompt(name, text))
    context, options = _optional(fields, "context"), _options(fields)
    if context or options:
        asked = replace(
            asked, text=_with(context, asked.text, options), last=_with(context, asked.last, options)
        )
        asked = replace(asked, is_dialogue=asked.is_dialogue and not context)
        wordings = [_with(context, wording, options) for wording in wordings]
    history = _history(fields)
    if history.turns or history.last:
        last = f"{history.last}\n{asked.last}" if history.last else asked.last
        asked = replace(asked, last=last, turns=(*history.turns, *asked.turns), is_dialogue=False)
    return replace(
        asked,
        input=_optional(fields, "input"),
        system=_optional(fields, "system") or history.system,
        reference=_answer(fields),
        wordings=tuple(_not_blank(wording) for wording in wordings),
        unused=history.unused,
    )


def _with(context: str, question: str, options: str) -> str:
    """Return the question as it is asked: its context before it, its options under it."""
    return "\n".join(part for part in (context, question, options) if part)


def _no_question(fields: Fields) -> RecordError:
    folded = {name.strip().casefold() for name in fields.record}
    if folded & {*NAMES["question"]}:
        return RecordError(say("问题是空的", "the question is empty"))
    there, usual = ", ".join(map(str, fields.record)) or say("无", "none"), ", ".join(NAMES["question"][:4])
    return RecordError(
        say(
            f"没有问题字段（如 {usual}）；有的是：{there}",
            f"no question field (such as {usual}); there are: {there}",
        ),
        say(
            "用 --question-field 和 --answer-field 指定字段",
            "name the fields with --question-field and --answer-field",
        ),
    )


def _wordings(name: str, value: Any) -> list[str]:
    """Return the ways in which the field asks one question."""
    if name.strip().casefold() != "questions" or not isinstance(value, list):
        return [_text(value, name)]
    # Huatuo's encyclopedia has lists of wordings in the list. Several answers are refused where those are read.
    wordings = [one for part in value for one in (part if isinstance(part, list) else [part])]
    return [_text(one, name) for one in wordings] or [""]


def _answer(fields: Fields) -> Any:
    name = fields.find("answer")
    value = fields.take("answer", name)
    if name is not None and _holds_messages(value):
        said = parse_conversation(name, value)
        if len(said.turns) == 1 and not said.last and not said.turns[0].question:
            return said.turns[0].answer
    if name is None or name.strip().casefold() != "answers" or not isinstance(value, list):
        return value
    if len(value) != 1:
        raise RecordError(
            say(f"{name} 里有 {len(value)} 个答案", f"{name} holds {len(value)} answers"),
            say("每条记录只放一个问题和它的答案", "keep one question and its answer in a record"),
        )
    return value[0]


def _options(fields: Fields) -> str:
    name = fields.find("options")
    if name is not None and holds_options(fields.record[name]):
        return options_text(name, fields.take("options", name))
    if name is not None:
        return ""
    columns = lettered_columns(fields.record)
    return options_text("A", {column: fields.take("options", column) for column in columns})


def _history(fields: Fields) -> Spoken:
    name = fields.find("history")
    return (
        Spoken()
        if name is None
        else parse_conversation(name, fields.take("history", name), texts=False).as_past()
    )


def _optional(fields: Fields, use: Use) -> str:
    name = fields.find(use)
    return "" if name is None else _text(fields.take(use, name), name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        remedy = ""
        if isinstance(value, (list, dict)):
            remedy = say(
                "一条记录一个对象，字段里是一段文本；按列存的表先改成每行一条",
                "an object a record, a text in each field; turn a table kept by columns into a record a line",
            )
        raise RecordError(say(f"{name} 应当是文本", f"{name} must be text"), remedy)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError(
            say(f"{name} 不是有效的 Unicode 文本", f"{name} is not valid Unicode text")
        ) from None
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise RecordError(say("问题是空的", "the question is empty"))
    return _text(text, "question")
