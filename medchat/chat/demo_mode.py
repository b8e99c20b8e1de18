"""The restrictions of the demo's tiny model wherever it is loaded: it answers its own questions only, without history.

They belong to the checkpoint, not to `medchat demo`: they also hold for `chat -c`, `ask --model` and `infer`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medchat import paths
from medchat.api import Conversation, Notice, PromptTemplate, Segment, SlashCommand, Turn
from medchat.chat.setup import ChatSetup
from medchat.demo_data import DemoPair, demo_examples
from medchat.errors import UsageError
from medchat.language import say

#: The notice before the tiny model's answer to a question that it has not learned.
_MEANS_NOTHING = (
    "这不是演示模型学过的问题，下面的回答没有意义，请不要当真。",
    "This is not one of the demo's own questions: the answer below means nothing.",
)
#: The file that marks a demo model. A copy of the folder includes it.
MARK = "medchat_demo.json"


def demo_folder() -> Path:
    """Return the folder of the trained demo models."""
    return paths.cache_dir() / "demo"


def mark_as_demo(model: Path) -> None:
    """Mark the folder as the demo's model. Written last: without it training did not end."""
    (model / MARK).write_text("{}\n", encoding="utf-8")


def is_demo(model: Path) -> bool:
    """Whether `model` was trained by `medchat demo`, even if it was copied."""
    return (model / MARK).is_file()


def as_demo(opening: ChatSetup) -> tuple[ChatSetup, KnownQuestions | None]:
    """Return `opening` adapted to the demo's model, and its known questions; unchanged, and None, for other weights."""
    if not is_demo(opening.options.model):
        return opening, None
    known, generation = KnownQuestions(demo_examples()), opening.generation
    if not opening.settings.is_set("generation.greedy"):
        generation = replace(generation, greedy=True)
    return replace(opening, template=LearnedAlone(opening.template, known), generation=generation), known


def says_it_means_nothing(notice: str) -> bool:
    """Whether `notice`, in either language, is the one before a meaningless answer of the demo's model."""
    return notice in _MEANS_NOTHING


class UnknownToDemo(UsageError):
    """The demo's model was asked something it has not learned. `nearest` are learned questions, most similar first."""

    def __init__(self, nearest: Sequence[str]) -> None:
        self.nearest = tuple(nearest)
        near = say("；学过相近的：", "; it has learned: ") + " / ".join(self.nearest) if nearest else ""
        super().__init__(
            say(
                "演示模型没有学过这个问题，不作回答",
                "the demo model has not learned this question: no answer",
            )
            + near,
            say(
                "请换一个它学过的问题；加上 --force-answer 会照样生成，但内容没有意义",
                "ask one that it has learned; --force-answer makes it write anyway, but the text means nothing",
            ),
        )


#: Stop words: they say nothing about the topic.
_ASKING = re.compile(
    r"为什么|是什么|什么|怎么办|怎么样|怎么|怎样|如何|应该|需要|可以|能不能|有没有|是不是|多少|哪些|哪种"
    r"|[吗呢吧啊了的是有我他她你]|[\W\d]"
)
#: The number of learned questions to offer, and the least similarity of one.
_OFFERED, _LIKE = 3, 4.0


class KnownQuestions:
    """The questions that the demo's model has learned. Punctuation, width and case are ignored."""

    def __init__(self, pairs: Sequence[DemoPair]) -> None:
        self._questions = tuple(pair.question for pair in pairs)
        self._by_form = {_form(question): question for question in self._questions}
        self._asked = [_couples(pair.question) for pair in pairs]
        self._said = [_couples(f"{pair.question} {pair.answer}") for pair in pairs]
        counts = Counter(couple for couples in self._said for couple in couples)
        self._weight = {couple: math.log(len(pairs) / count) for couple, count in counts.items()}

    def learned(self, question: str) -> str | None:
        """Return the question as it was learned, or None if it was not."""
        return self._by_form.get(_form(question))

    def nearest(self, question: str) -> tuple[str, ...]:
        """Return up to three learned questions that `question` may have meant, most similar first.

        The similarity is the sum of the weights of shared bigrams (the logarithm of how rare they are among
        the pairs); a bigram in the learned question itself, not its answer, counts twice.
        """
        couples = _couples(question)
        scores: list[tuple[float, str]] = []
        for learned, asked, said in zip(self._questions, self._asked, self._said, strict=True):
            shared = couples & said
            score = sum(self._weight[couple] * (2 if couple in asked else 1) for couple in shared)
            scores.append((score, learned))
        scores.sort(key=lambda scored: -scored[0])
        least = max(_LIKE, scores[0][0] / 2)
        return tuple(learned for score, learned in scores[:_OFFERED] if score >= least)

    def check(self, question: str) -> None:
        """Raise UnknownToDemo unless `question` was learned."""
        if self.learned(question) is None:
            raise UnknownToDemo(self.nearest(question))

    def warnings(self, question: str) -> tuple[Notice, ...]:
        """Return the notices before an answer to a question that the model has not learned."""
        if self.learned(question) is not None:
            return ()
        return (Notice(say(*_MEANS_NOTHING)),)

    def slash_command(self) -> SlashCommand:
        """Return `/questions`, which lists the known questions, or those that contain the given words."""

        def listed(conversation: Conversation, words: str) -> str:
            found = [question for question in self._questions if words.strip() in question]
            return "\n".join(found) or say("没有包含这些字的问题", "no question contains these words")

        summary = {"zh": "列出演示模型学过的问题", "en": "list the questions the demo has learned"}
        return SlashCommand("questions", "题目", summary, listed)


class DemoGate:
    """Lets the demo's model answer what it has learned, and anything else only if the user insists.

    The last refused question and the questions offered instead are kept, so that a number can choose one.
    """

    def __init__(self, known: KnownQuestions) -> None:
        self._known = known
        self._offered: tuple[str, ...] = ()
        self.refused = ""

    def meant(self, typed: str) -> str:
        """Return the offered question whose number was typed, else `typed` itself."""
        number = unicodedata.normalize("NFKC", typed).strip()
        if number.isascii() and number.isdecimal() and 1 <= int(number[:3]) <= len(self._offered):
            return self._offered[int(number[:3]) - 1]
        return typed

    def admit(self, question: str, *, insist: bool) -> tuple[Notice, ...]:
        """Return notices to show before the answer. Raises UnknownToDemo for an unknown question."""
        self._offered, self.refused = (), ""
        if insist:
            return self._known.warnings(question)
        try:
            self._known.check(question)
        except UnknownToDemo as unknown:
            self._offered, self.refused = unknown.nearest, question
            raise
        return ()


class LearnedAlone:
    """The demo model's template: each question in its learned wording, without the turns before it.

    It saw every pair on its own and verbatim; after another turn, or with another question mark, a question
    is unknown to it.
    """

    def __init__(self, inner: PromptTemplate, known: KnownQuestions) -> None:
        self._inner = inner
        self._known = known

    @property
    def name(self) -> str:
        """The name of the wrapped template."""
        return self._inner.name

    @property
    def stop(self) -> tuple[str, ...]:
        """The wrapped template's stop texts."""
        return self._inner.stop

    @property
    def multi_turn(self) -> bool:
        """True, so that no remark is made: earlier turns are never sent."""
        return True

    def render(self, turns: Sequence[Turn], question: str, system: str = "") -> tuple[Segment, ...]:
        """Return the prompt for the question alone, in its learned wording if it has one."""
        return self._inner.render((), self._known.learned(question) or question)


def _form(question: str) -> str:
    """A question's letters, digits and ideographs, which are compared."""
    return "".join(
        character for character in unicodedata.normalize("NFKC", question).casefold() if character.isalnum()
    )


def _couples(text: str) -> frozenset[str]:
    """The bigrams of the topic, and every whole number."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    couples = [part[index : index + 2] for part in _ASKING.split(plain) for index in range(len(part) - 1)]
    return frozenset([*couples, *re.findall(r"\d+", plain)])
