"""From examples to token ids: the prompt exactly as chat renders it, the answer, and its end token.

Knows no tensors: a family's collator makes those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from medchat.api import Example, PromptTemplate, Segment
from medchat.errors import DataError
from medchat.language import say

#: More examples than this share that do not fit `max_length` and the run is refused (specs/sft.md).
LEFT_OUT_ALLOWED = 0.01


class Encoder(Protocol):
    """A family's way from text to ids: the same calls that chat makes."""

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
    #: Which example it was, from 1: what an error about a batch names.
    record: int

    @property
    def length(self) -> int:
        """Return the number of ids."""
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """All features of a run. `shortened` lost old turns, the records `left_out` did not fit at all."""

    features: tuple[Feature, ...]
    shortened: int = 0
    left_out: tuple[int, ...] = ()

    @property
    def label_tokens(self) -> int:
        """Return how many tokens the loss is taken over."""
        return sum(len(feature.answer_ids) for feature in self.features)


def build_features(
    examples: Sequence[Example],
    template: PromptTemplate,
    encoder: Encoder,
    max_length: int,
    *,
    allow_left_out: bool = False,
) -> FeatureSet:
    """Encode the examples. Too long ones lose their oldest turns, never a part of question or answer.

    What still exceeds `max_length` tokens is left out. Raises DataError if that concerns more than one
    example in a hundred (unless `allow_left_out`), or leaves none.
    """
    features: list[Feature] = []
    left_out: list[int] = []
    shortened = 0
    for record, example in enumerate(examples, start=1):
        fitted = _fit(example, template, encoder, max_length)
        if fitted is None:
            left_out.append(record)
            continue
        prompt_ids, answer_ids, dropped = fitted
        shortened += dropped > 0
        features.append(Feature(tuple(prompt_ids), tuple(answer_ids), record))
    if not features or (len(left_out) > LEFT_OUT_ALLOWED * len(examples) and not allow_left_out):
        raise _too_long(len(examples), left_out, max_length)
    return FeatureSet(tuple(features), shortened, tuple(left_out))


def _fit(
    example: Example, template: PromptTemplate, encoder: Encoder, max_length: int
) -> tuple[list[int], list[int], int] | None:
    answer_ids = encoder.encode_answer(example.answer)
    for dropped in range(len(example.turns) + 1):
        segments = template.render(example.turns[dropped:], example.question, example.system)
        prompt_ids = encoder.encode_prompt(segments)
        if len(prompt_ids) + len(answer_ids) <= max_length:
            return prompt_ids, answer_ids, dropped
    return None


def _too_long(total: int, left_out: Sequence[int], max_length: int) -> DataError:
    if not total:
        return DataError(
            say("训练数据是空的", "there is no training data"),
            say("请检查 --data 指向的文件", "check the file given with --data"),
        )
    first = ", ".join(map(str, left_out[:5]))
    return DataError(
        say(
            f"{total} 条数据中有 {len(left_out)} 条超过 {max_length} 个词元（如第 {first} 条）",
            f"{len(left_out)} of {total} examples exceed {max_length} tokens (such as no. {first})",
        ),
        say(
            "请调大 --max-length，或加上 --allow-truncation 略去这些数据",
            "raise --max-length, or leave them out with --allow-truncation",
        ),
    )
