"""Answers with a clock beside them. Knows no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from medchat.plugin_kit import GenerationConfig, OpenedModel, Segment, UsageError, say

#: What prompts are made of, as often as it takes.
_TEXT = (
    "请根据以下病历说明可能的原因、需要做的检查和日常注意事项。"
    "患者自述近一周头晕、乏力，夜间睡眠差，食欲一般，无发热。"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One measured answer: tokens of prompt and answer, seconds until its first and its last token.

    `first` counts the tokens that were there at the first moment: one as a rule.
    """

    prompt_tokens: int
    tokens: int
    first: int
    first_seconds: float
    seconds: float

    @property
    def prompt_rate(self) -> float:
        """Tokens of the prompt a second until the first token came."""
        return self.prompt_tokens / self.first_seconds

    @property
    def rate(self) -> float | None:
        """Tokens a second behind the first; None for an answer without any behind it."""
        behind = self.tokens - self.first
        return behind / (self.seconds - self.first_seconds) if behind > 0 else None


@dataclass(frozen=True, slots=True)
class Case:
    """The medians over the runs with prompts of one length. `bandwidth` is in bytes a second, seen beside them."""

    wanted: int
    prompt_tokens: int
    tokens: int
    first_seconds: float
    prompt_rate: float
    rate: float | None
    bandwidth: float
    runs: int


def summarised(wanted: int, answers: Sequence[Answered], bandwidths: Sequence[float]) -> Case:
    """Return the medians of the runs with prompts of `wanted` tokens. At least one run and one bandwidth."""
    rates = [answer.rate for answer in answers if answer.rate is not None]
    return Case(
        wanted,
        round(median(answer.prompt_tokens for answer in answers)),
        round(median(answer.tokens for answer in answers)),
        median(answer.first_seconds for answer in answers),
        median(answer.prompt_rate for answer in answers),
        median(rates) if rates else None,
        median(bandwidths),
        len(answers),
    )


def measured_prompt(opened: OpenedModel, wanted: int, run: int) -> Sequence[Segment]:
    """Return a prompt of about `wanted` tokens, template included, that begins as that of no other run.

    So nothing of it is kept from the run before. Raises UsageError where the model has no room for so many.
    """
    room = opened.model.context_length
    if wanted >= room:
        raise UsageError(
            say(
                f"提示词 {wanted} 个词元放不进模型的 {room} 个位置",
                f"a prompt of {wanted} tokens does not fit the model's {room} positions",
            ),
            say("调低 --prompt-tokens", "lower --prompt-tokens"),
        )
    model, length, most = opened.model, 1, 8 * wanted
    # The most characters that do not go beyond, by halving.
    while length < most:
        middle = (length + most + 1) // 2
        segments = opened.chat().template.render((), _question(run, middle))
        length, most = (middle, most) if model.count(segments) <= wanted else (length, middle - 1)
    return opened.prompt(_question(run, length)).segments


def _question(run: int, length: int) -> str:
    return (f"{run}." + _TEXT * (length // len(_TEXT) + 1))[:length]


def answered(opened: OpenedModel, segments: Sequence[Segment], config: GenerationConfig) -> Answered:
    """Answer one prompt and return what it took. Raises UsageError for an answer without a token."""
    begun, moments, prompt = time.perf_counter(), list[tuple[int, float]](), 0
    for delta in opened.model.stream(segments, config, threading.Event()):
        if delta.completion_tokens > (moments[-1][0] if moments else 0):
            moments.append((delta.completion_tokens, time.perf_counter()))
        prompt = delta.prompt_tokens
    if not moments:
        raise UsageError(
            say("模型没有给出回答，无法测速", "the model gave no answer: there is nothing to measure"),
            say("换一个模型或 --prompt-tokens", "use another model or --prompt-tokens"),
        )
    (first, at), (tokens, end) = moments[0], moments[-1]
    return Answered(prompt, tokens, first, at - begun, end - begun)
