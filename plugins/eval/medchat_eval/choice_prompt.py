"""How a choice question is put to a model, with its options in order or turned by some places.

A change of wording changes results: it raises `FORM_VERSION`, which every result states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medchat.plugin_kit import Turn
from medchat_eval.choice_file import LETTERS, ChoiceItem, option_letters

FORM_VERSION = 1
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class AskedChoice:
    """A question whose options stand `turned` places further, those at the end again at the beginning."""

    item: ChoiceItem
    turned: int = 0
    #: Whether the options are under the question: not where their texts are compared.
    shows_options: bool = True

    @property
    def options(self) -> tuple[str, ...]:
        """The options in the order in which they are asked."""
        texts = self.item.options
        return tuple(texts[(at - self.turned) % len(texts)] for at in range(len(texts)))

    @property
    def answer(self) -> frozenset[int]:
        """The places of the right options as they are asked."""
        return frozenset((place + self.turned) % len(self.item.options) for place in self.item.answer)

    @property
    def prompt(self) -> str:
        """The question as it is put, the options under their letters."""
        if not self.shows_options:
            return self.item.question
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, self.options, strict=False)]
        return "\n".join([_instruction(self.item), "", self.item.question, *lines])

    def as_example(self) -> Turn:
        """Return the question with its right answer, as a turn before another question."""
        words = option_letters(self.answer) if self.shows_options else "；".join(self._right_texts)
        return Turn(self.prompt, words)

    @property
    def _right_texts(self) -> list[str]:
        return [self.options[place] for place in sorted(self.answer)]


def in_every_order(item: ChoiceItem) -> list[AskedChoice]:
    """Return the question once for each cyclic order of its options, the file's own first."""
    return [AskedChoice(item, turned) for turned in range(len(item.options))]


def examples_for(asked: AskedChoice, examples: Sequence[ChoiceItem], count: int) -> tuple[Turn, ...]:
    """Return the first `count` examples as turns: those of the question's subject, of others where it has none.

    Examples that ask for one option go before questions that do, those that ask for several before the others.
    """
    item = asked.item
    fitting = [one for one in examples if one.several == item.several and one.question != item.question]
    same = [one for one in fitting if one.subject == item.subject]
    chosen = (same or fitting)[:count]
    return tuple(AskedChoice(one, shows_options=asked.shows_options).as_example() for one in chosen)


def _instruction(item: ChoiceItem) -> str:
    if not _CHINESE.search(item.question + "".join(item.options)):
        wanted = "all correct options" if item.several else "the correct option"
        return f"Answer the multiple-choice question: give the letter of {wanted} and nothing else."
    if item.several:
        return "下面是一道多项选择题，请选出所有正确的选项，只回答选项的字母。"
    return "下面是一道单项选择题，请选出正确的选项，只回答选项的字母。"
