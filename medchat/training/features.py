"""Turns examples into token ids: the prompt exactly as chat renders it, the answer, and its end token.

Too long examples are truncated in this order: whole oldest turns; the beginning of `input`, then of the
question, of which the last half and at least 16 tokens stay; the end of the answer, whose end token always
stays. Text is cut between characters, never inside one. No tensors here: a family's collator makes those.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from medchat.api import Example, PromptTemplate, Segment, Text, option_facts
from medchat.errors import DataError
from medchat.language import say
from medchat.templates import takes_dialogues, with_input

#: A run is refused if more than this share of the examples have no label (docs/specs/training.md,
#: "Truncation").
LEFT_OUT_ALLOWED = 0.01
#: The fewest tokens that stay of a text whose beginning is cut.
TOKENS_KEPT = 16


class Encoder(Protocol):
    """Turns text into ids, with the same calls as chat."""

    def encode_prompt(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a whole prompt, special ones included."""
        ...

    def encode_answer(self, answer: str) -> list[int]:
        """Return the ids of an answer and of the end token after it."""
        ...


@dataclass(frozen=True, slots=True)
class Feature:
    """One example as ids. Labels are `answer_ids` (end token included) and nothing else."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    #: The number of the example, from 1.
    record: int
    #: Its position as `file:line`, which errors about a batch name.
    where: str = ""

    @property
    def length(self) -> int:
        """Return the number of ids."""
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An example left without an answer. `needed`: a length that leaves one character and the end token."""

    record: int
    where: str
    needed: int


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """All features of a run, and how many were truncated.

    `lengths` are of all examples, uncut, in tokens. The counts are of features that lost oldest turns, the
    beginning of `input` or question, the end of the answer; one may count in several.
    """

    features: tuple[Feature, ...]
    lengths: tuple[int, ...] = ()
    lost_turns: int = 0
    cut_questions: int = 0
    cut_answers: int = 0
    left_out: tuple[LeftOut, ...] = ()

    @property
    def tokens(self) -> int:
        """Return how many tokens one epoch has."""
        return sum(feature.length for feature in self.features)

    @property
    def label_tokens(self) -> int:
        """Return how many tokens the loss is taken over."""
        return sum(len(feature.answer_ids) for feature in self.features)


@dataclass(frozen=True, slots=True)
class EncodedData:
    """The encoded data of a run: its template and its features."""

    template: PromptTemplate
    train: FeatureSet
    held_out: tuple[Feature, ...]


def encode_examples(
    examples: Sequence[Example], template: PromptTemplate, encoder: Encoder, max_length: int
) -> FeatureSet:
    """Encode the examples, each cut to `max_length` tokens where it is longer.

    An example that would keep no answer is left out: see `refuse_left_out`.
    """
    features: list[Feature] = []
    left_out: list[LeftOut] = []
    lengths: list[int] = []
    lost: Counter[str] = Counter()
    # Equal ids share one object: a large data set takes a quarter of the memory.
    same: dict[int, int] = {}
    for record, example in enumerate(examples, start=1):
        fitted = _Fitting(example, template, encoder, max_length).fitted()
        lengths.append(fitted.length)
        if not fitted.answer_ids:
            left_out.append(LeftOut(record, example.where, fitted.needed))
            continue
        lost.update(fitted.lost)
        prompt_ids = tuple(same.setdefault(token, token) for token in fitted.prompt_ids)
        answer_ids = tuple(same.setdefault(token, token) for token in fitted.answer_ids)
        features.append(Feature(prompt_ids, answer_ids, record, example.where))
    return FeatureSet(
        features=tuple(features),
        lengths=tuple(lengths),
        lost_turns=lost["turns"],
        cut_questions=lost["question"],
        cut_answers=lost["answer"],
        left_out=tuple(left_out),
    )


def refuse_left_out(sets: Sequence[FeatureSet], max_length: int, *, allow: bool = False) -> None:
    """Raise DataError if over one example in a hundred of all sets keeps no answer, unless `allow`.

    Also raises it if the first set is empty. The advice is for all sets together.
    """
    lengths = [length for made in sets for length in made.lengths]
    left_out = [record for made in sets for record in made.left_out]
    if not sets[0].features or (len(left_out) > LEFT_OUT_ALLOWED * len(lengths) and not allow):
        raise _too_long(lengths, left_out, max_length)


def refuse_past_positions(sets: Sequence[FeatureSet], positions: int, prefix: int = 0) -> None:
    """Raise DataError if an example, cut as it is, is longer than the positions that a prefix of that length leaves."""
    left = max(0, positions - prefix)
    longer = [feature for made in sets for feature in made.features if feature.length > left]
    if not longer:
        return
    most, more = max(feature.length for feature in longer), " …" if len(longer) > 5 else ""
    names = ", ".join(feature.where or f"#{feature.record}" for feature in longer[:5]) + more
    what = say(
        f"模型只有 {left} 个位置可用，而 {len(longer)} 条数据更长（最长 {most} 个词元）：{names}",
        f"the model has {left} positions for them; {len(longer)} examples are longer (up to {most} tokens): {names}",
    )
    can_cut = left in (option_facts()["max_length"].allowed or ())
    ways = [
        say(f"用 --max-length {left} 截断", f"cut: --max-length {left}") if can_cut else "",
        say(f"缩短前缀：--pre-seq-len（现为 {prefix}）", f"--pre-seq-len below {prefix}") if prefix else "",
        say("换用位置更多的模型", "use a model with more positions"),
    ]
    raise DataError(what, say("，或", ", or ").join(filter(None, ways)))


def prompt_of(example: Example, template: PromptTemplate) -> tuple[Segment, ...]:
    """Return the full prompt as batch inference renders it: with its `input`, or the dialogue's turns."""
    if example.dialogue and takes_dialogues(template):
        return _rendered(replace(example, turns=(), question=example.dialogue), template)
    return _rendered(example, template)


def _rendered(example: Example, template: PromptTemplate) -> tuple[Segment, ...]:
    form = with_input(template, example.input)
    return form.render(example.turns, example.question, example.system)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """`length` is before truncation; `answer_ids` is empty if nothing of the answer fits, and `needed` would.

    `lost` names what something was taken from: "turns", "question", "answer".
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    length: int
    lost: tuple[str, ...] = ()
    needed: int = 0


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Makes one example fit."""

    example: Example
    template: PromptTemplate
    encoder: Encoder
    max_length: int

    def fitted(self) -> _Fitted:
        """Return the ids, truncated no more than necessary. Most examples are encoded once, in full."""
        answer_ids = self.encoder.encode_answer(self.example.answer)
        prompt_ids = self.encoder.encode_prompt(prompt_of(self.example, self.template))
        length = len(prompt_ids) + len(answer_ids)
        if length <= self.max_length:
            return _Fitted(prompt_ids, answer_ids, length)
        room = self.max_length - len(answer_ids)
        later = self.without_oldest_turns(room)
        shortened = later
        for name in ("input", "question"):
            if len(self.prompt(shortened)) > room:
                shortened = self.without_beginning(shortened, name, room)
        prompt_ids = self.prompt(shortened)
        lost = ["turns"] if len(later.turns) < len(self.example.turns) else []
        lost += ["question"] if shortened != later else []
        if len(prompt_ids) <= room:
            return _Fitted(prompt_ids, answer_ids, length, tuple(lost))
        kept = self.beginning_of_answer(self.max_length - len(prompt_ids))
        needed = len(prompt_ids) + len(self.encoder.encode_answer(self.first_character))
        return _Fitted(prompt_ids, kept, length, (*lost, "answer"), needed)

    def prompt(self, example: Example) -> list[int]:
        return self.encoder.encode_prompt(_rendered(example, self.template))

    def without_oldest_turns(self, room: int) -> Example:
        """The example with as many of its latest turns as fit with the complete question and answer."""

        def later(dropped: int) -> Example:
            return replace(self.example, turns=self.example.turns[dropped:])

        return later(
            _least(len(self.example.turns), lambda dropped: len(self.prompt(later(dropped))) <= room)
        )

    def without_beginning(self, example: Example, name: str, room: int) -> Example:
        """The example with the beginning of a field cut off until it fits, or as far as is allowed."""
        text: str = getattr(example, name)
        kept = min(TOKENS_KEPT, self.tokens(text))
        most = _least(len(text) // 2, lambda cut: self.tokens(text[cut + 1 :]) < kept)
        cut = _least(most, lambda cut: len(self.prompt(_replaced(example, name, text[cut:]))) <= room)
        return _replaced(example, name, text[cut:])

    def beginning_of_answer(self, room: int) -> list[int]:
        """The longest beginning of the answer that fits with its end token; nothing if no character does."""
        answer = self.example.answer
        cut = _least(
            len(answer), lambda cut: len(self.encoder.encode_answer(answer[: len(answer) - cut])) <= room
        )
        kept = answer[: len(answer) - cut]
        return self.encoder.encode_answer(kept) if kept.strip() else []

    @property
    def first_character(self) -> str:
        """The answer up to its first character that is not a space."""
        answer = self.example.answer
        return answer[: len(answer) - len(answer.lstrip()) + 1]

    def tokens(self, text: str) -> int:
        """The number of tokens of a text on its own."""
        return len(self.encoder.encode_prompt((Text(text),))) - len(self.encoder.encode_prompt(()))


def _replaced(example: Example, name: str, text: str) -> Example:
    return replace(example, input=text) if name == "input" else replace(example, question=text)


def _least(most: int, fits: Callable[[int], bool]) -> int:
    """Return the smallest number that fits, by bisection; `most` if no smaller one does."""
    return bisect_left(range(most), True, key=fits)


def _too_long(lengths: Sequence[int], left_out: Sequence[LeftOut], max_length: int) -> DataError:
    if not lengths:
        return DataError(
            say("训练数据是空的", "there is no training data"),
            say("请检查 --data 指向的文件", "check the file given with --data"),
        )
    total = len(lengths)
    needed = sorted((record.needed for record in left_out), reverse=True)
    enough = needed[int(LEFT_OUT_ALLOWED * total)]
    names = say("、", ", ").join(record.where or f"#{record.record}" for record in left_out[:5])
    more = " …" if len(left_out) > 5 else ""
    return DataError(
        say(
            f"{total} 条数据中有 {len(left_out)} 条（{len(left_out) / total:.1%}）"
            f"截断到 {max_length} 个词元后不剩任何答案：{names}{more}",
            f"{len(left_out)} of {total} examples ({len(left_out) / total:.1%}) lose their whole answer"
            f" when cut to {max_length} tokens: {names}{more}",
        ),
        say(
            f"请用 --max-length {enough}（{max(lengths)} 则什么都不截断），或加上 --allow-truncation 略去这些数据",
            f"use --max-length {enough} ({max(lengths)} cuts nothing), or leave them out with --allow-truncation",
        ),
    )
