"""Literature to dialogues in four stages: statements, a question each, its answer, and the check of the answer.

Every stage is a call whose answer has to be the form asked for. What fails in one is dropped there, with the reason.
Knows no files and no terminal.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medchat.plugin_kit import Finish, StoredAnswer, say
from medchat_data.drafts import draft_reasons, read_form, read_texts
from medchat_data.knowledge import TURN_MARK
from medchat_data.literature import LiteratureText
from medchat_data.literature_prompts import (
    MOST_STATEMENTS,
    answer_prompt,
    check_prompt,
    question_prompt,
    statements_prompt,
)
from medchat_data.measuring import AGREEING
from medchat_data.verifying import mentions_word, normalised

#: Calls that one text can take: its statements, then three for each.
MOST_CALLS = 1 + 3 * MOST_STATEMENTS
#: A span of fewer characters shows nothing.
_SHORTEST_QUOTE = 4
#: What the first sentence of an answer has that says no to what was asserted.
_DENIAL = re.compile("不|没有|并非|未必|错|误")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
#: The code of what has no answer yet.
NOT_ASKED = "not-asked"


#: Gives the answers to prompts, by prompt; those that there is none to are left out.
Ask = Callable[[Iterable[str]], Mapping[str, StoredAnswer]]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of a text on its way to a question and an answer.

    `code` says at what it failed ("" while it has not), `written` what a model wrote then; `calls` are the prompts'
    digests by stage, `day` is that of the last call.
    """

    source: LiteratureText
    text: str = ""
    asserts_false: bool = False
    question: str = ""
    answer: str = ""
    quote: str = ""
    code: str = ""
    written: str = ""
    day: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stages:
    """What decides the statements beside the answers: the `false_share` of them that are asked about wrongly."""

    false_share: float
    seed: int

    def run(self, sources: Sequence[LiteratureText], ask: Ask) -> list[list[Statement]]:
        """Return what became of each text's statements, in their order, asking stage after stage."""
        found = list(self._extracted(sources, ask))
        found = _advanced(found, ask, _question_prompt, _with_question)
        found = _advanced(found, ask, _answer_prompt, _with_answer)
        found = _advanced(found, ask, _check_prompt, _with_check)
        return [[one for one in found if one.source is source] for source in sources]

    def _extracted(self, sources: Sequence[LiteratureText], ask: Ask) -> Iterator[Statement]:
        answers = ask([statements_prompt(source.text) for source in sources])
        for source in sources:
            answer = answers.get(statements_prompt(source.text))
            begun = Statement(source)
            if answer is None:
                yield replace(begun, code=NOT_ASKED)
                continue
            begun = replace(begun, day=answer.day, calls=(answer.sha256,))
            is_cut = answer.finish is Finish.LENGTH
            texts = None if is_cut else _statements(answer.text)
            if not texts:
                code = "cut-off" if is_cut else "not-the-form"
                yield replace(begun, code=code, written=answer.text)
            for text in texts or ():
                chance = random.Random(f"{self.seed}/{source.sha256}/{text}").random()
                foreign = set(_NUMBER.findall(text)) - set(_NUMBER.findall(source.text))
                code = "number-not-in-text" if foreign else ""
                yield replace(
                    begun,
                    text=text,
                    asserts_false=chance < self.false_share,
                    code=code,
                    written=text if code else "",
                )


def _advanced(
    statements: Iterable[Statement],
    ask: Ask,
    prompt: Callable[[Statement], str],
    take: Callable[[Statement, str], Statement],
) -> list[Statement]:
    """Return the statements after a stage, those that had failed before as they were."""
    found = list(statements)
    answers = ask([prompt(one) for one in found if not one.code])
    return [one if one.code else _taken(one, answers.get(prompt(one)), take) for one in found]


def _taken(
    one: Statement, answer: StoredAnswer | None, take: Callable[[Statement, str], Statement]
) -> Statement:
    if answer is None:
        return replace(one, code=NOT_ASKED)
    is_cut = answer.finish is Finish.LENGTH
    taken = replace(one, code="cut-off") if is_cut else take(one, answer.text)
    if not taken.code and TURN_MARK.search(taken.question + taken.answer):
        taken = replace(taken, code="turn-mark")
    written = answer.text if taken.code else ""
    return replace(taken, written=written, day=answer.day, calls=(*one.calls, answer.sha256))


def _question_prompt(one: Statement) -> str:
    return question_prompt(one.text, asserts_false=one.asserts_false)


def _with_question(one: Statement, written: str) -> Statement:
    texts = read_texts(written, ("question",))
    return replace(one, question=texts[0]) if texts else replace(one, code="not-the-form")


def _answer_prompt(one: Statement) -> str:
    return answer_prompt(one.text, one.question, asserts_false=one.asserts_false)


def _with_answer(one: Statement, written: str) -> Statement:
    texts = read_texts(written, ("answer",))
    if not texts:
        return replace(one, code="not-the-form")
    answer = texts[0]
    first = re.split("[。！？!?\n]", answer, maxsplit=1)[0]
    if one.asserts_false and (AGREEING.match(answer) or not _DENIAL.search(first)):
        return replace(one, answer=answer, code="agrees-with-what-is-false")
    if set(_NUMBER.findall(answer)) - set(_NUMBER.findall(one.text + one.question)):
        return replace(one, answer=answer, code="number-not-in-text")
    return replace(one, answer=answer)


def _check_prompt(one: Statement) -> str:
    return check_prompt(one.text, one.question, one.answer)


def _with_check(one: Statement, written: str) -> Statement:
    texts = read_texts(written, ("supported", "quote"))
    if not texts or texts[0] not in ("yes", "no"):
        return replace(one, code="not-the-form")
    supported, quote = texts
    if supported == "no":
        return replace(one, code="not-supported")
    if len(normalised(quote)) < _SHORTEST_QUOTE or not mentions_word(one.text, quote):
        return replace(one, code="quote-not-found")
    return replace(one, quote=quote)


def _statements(written: str) -> list[str] | None:
    """Return the statements that a model wrote, each once; None for anything but the form asked for."""
    form = read_form(written, ("statements",))
    texts = form["statements"] if form else None
    if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_STATEMENTS:
        return None
    # Each as a form of its own, so that a text is what it is everywhere.
    read = [read_texts(json.dumps({"text": text}), ("text",)) for text in texts]
    return list(dict.fromkeys(one[0] for one in read if one)) if all(read) else None


def stage_reasons() -> Mapping[str, str]:
    """Return why a statement is dropped, by code, in the interface language."""
    return {
        **{code: reason for code, reason in draft_reasons().items() if code in ("not-the-form", "cut-off")},
        "number-not-in-text": say("有原文里没有的数字", "it has a number that the text does not have"),
        "agrees-with-what-is-false": say(
            "没有先纠正提问里的错误说法", "it does not first correct what the question wrongly asserts"
        ),
        "not-supported": say(
            "核对认为回答不能由结论得出", "the check finds that the statement does not bear it out"
        ),
        "quote-not-found": say(
            "核对引用的原文在结论里找不到", "the span that the check quotes does not stand in the statement"
        ),
        "turn-mark": draft_reasons()["turn-mark"],
    }
