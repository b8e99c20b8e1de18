"""Choosing options by what a model finds most probable, or by what it answers. Knows no files and no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from medchat_eval.choice_file import option_letters
from medchat_eval.choice_prompt import AskedChoice
from medchat_eval.extraction import extract_choice
from medchat_eval.replies import ModelReply

#: So many questions go to the model together.
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class ScoredAnswers:
    """The log-probabilities of each candidate's tokens and of the end after them, by candidate.

    `dropped` counts the worked examples that did not fit; `refusal` says why a question could not be asked at all.
    """

    values: Sequence[Sequence[float]]
    dropped: int = 0
    refusal: str = ""


#: Scores the candidates for each question.
Scorer = Callable[[Sequence[AskedChoice], Sequence[Sequence[str]]], list[ScoredAnswers]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a model chose: places of options as they were asked; empty where it chose none.

    `per_character` is the choice by log-probability over length in characters, where texts are compared.
    """

    asked: AskedChoice
    places: frozenset[int]
    per_character: frozenset[int] | None = None
    reply: str = ""
    dropped: int = 0
    refusal: str = ""

    @property
    def right(self) -> bool:
        """Whether exactly the right options were chosen."""
        return self.places == self.asked.answer


def candidates(asked: AskedChoice, *, by_text: bool) -> list[tuple[frozenset[int], str]]:
    """Return what may be answered, each with the words for it.

    Letters, or with `by_text` the options themselves; for a question with several right options every set of letters.
    """
    places = range(len(asked.options))
    if asked.item.several:
        sets = [frozenset(one) for size in range(1, len(places) + 1) for one in combinations(places, size)]
        return [(one, option_letters(one)) for one in sets]
    return [
        (frozenset({place}), asked.options[place] if by_text else option_letters(frozenset({place})))
        for place in places
    ]


def choose_by_likelihood(
    questions: Iterable[AskedChoice], scorer: Scorer, *, by_text: bool = False
) -> Iterator[Chosen]:
    """Yield the choice for each question, in order.

    One letter or text is chosen by the sum over its tokens, a set of letters by the sum over its tokens and the end:
    without the end, a set would never be less probable than one that it begins. Of equals the first is chosen.
    """
    remaining = iter(questions)
    while block := list(islice(remaining, _TOGETHER)):
        possible = [candidates(asked, by_text=by_text) for asked in block]
        scored = scorer(block, [[words for _, words in one] for one in possible])
        for asked, one, found in zip(block, possible, scored, strict=True):
            yield _chosen(asked, one, found, by_text=by_text)


def _chosen(
    asked: AskedChoice,
    possible: Sequence[tuple[frozenset[int], str]],
    found: ScoredAnswers,
    *,
    by_text: bool,
) -> Chosen:
    if found.refusal:
        return Chosen(asked, frozenset(), None, "", found.dropped, found.refusal)
    sums = [sum(values if asked.item.several else values[:-1]) for values in found.values]
    best = possible[sums.index(max(sums))][0]
    if not by_text or asked.item.several:
        return Chosen(asked, best, dropped=found.dropped)
    shares = [total / len(words) for total, (_, words) in zip(sums, possible, strict=True)]
    return Chosen(asked, best, possible[shares.index(max(shares))][0], dropped=found.dropped)


def choose_by_reply(asked: AskedChoice, reply: ModelReply) -> Chosen:
    """Return what the reply chooses."""
    places = extract_choice(reply.text, asked.options, several=asked.item.several)
    return Chosen(asked, places, None, reply.text, reply.dropped, reply.refusal)
