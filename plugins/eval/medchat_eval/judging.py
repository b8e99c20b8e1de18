"""From judged answers to verdicts: one call each, pairs in both orders, a part of them again. Knows no terminal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medchat.plugin_kit import StoredAnswer, say
from medchat_eval.judge_forms import (
    CRITERIA,
    DIMENSIONS,
    PAIRWISE,
    TOP,
    Judged,
    judge_prompt,
    points_share,
    read_verdict,
)
from medchat_eval.results import Metric, mean_metric, share_metric

#: Answers prompts, in any order; one that has no answer is left out.
Caller = Callable[[Sequence[str]], Mapping[str, StoredAnswer]]


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """What one call gave: `value` where it was of the asked form, else why not in `reject`."""

    judged: Judged
    sha256: str
    reply: str
    value: Mapping[str, Any] | None
    reject: str = ""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All verdicts on one list of answers: the first, the repeats of some, for pairs those in the other order."""

    form: str
    first: Sequence[JudgeVerdict]
    again: Mapping[int, JudgeVerdict]
    swapped: Sequence[JudgeVerdict] = ()

    @property
    def scores(self) -> list[float | None]:
        """The score of each answer from 0 to 1, None without a verdict; of pairs that of the first answer."""
        if self.form == PAIRWISE:
            return [_of_pair(one, other) for one, other in zip(self.first, self.swapped, strict=True)]
        return [_score(self.form, one) for one in self.first]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The numbers about the answers, and those about the judge."""
        scores = [score for score in self.scores if score is not None]
        # Of pairs the first is the better one half of the time by chance.
        found = {"score": replace(mean_metric(scores), chance=0.5 if self.form == PAIRWISE else None)}
        for name in DIMENSIONS.get(self.form, ()):
            found[name] = mean_metric([float(one.value[name]) for one in self.first if one.value is not None])
        every = [*self.first, *self.swapped, *self.again.values()]
        found["verdict_rate"] = share_metric([one.value is not None for one in every])
        both = [(self.first[at], one) for at, one in self.again.items()]
        pairs = [(one.value, other.value) for one, other in both if one.value and other.value]
        if pairs:
            found["self_agreement"] = share_metric([one == other for one, other in pairs])
        if self.form == PAIRWISE:
            orders = [
                (one.value["better"], other.value["better"])
                for one, other in zip(self.first, self.swapped, strict=True)
                if one.value and other.value
            ]
            found["order_agreement"] = share_metric([one == _turned(other) for one, other in orders])
        return {name: metric for name, metric in found.items() if metric.count}


def judge_all(form: str, judged: Sequence[Judged], call: Caller, *, repeat_every: int = 0) -> Verdicts:
    """Return the verdicts on all of `judged`; every `repeat_every`-th is judged twice (0: none)."""
    turned = [replace(one, answers=one.answers[::-1]) for one in judged] if form == PAIRWISE else []
    repeated = {
        at: replace(one, repeat=2) for at, one in enumerate(judged) if repeat_every and at % repeat_every == 0
    }
    every = [*judged, *turned, *repeated.values()]
    prompts = [judge_prompt(form, one) for one in every]
    answers = call(prompts)
    verdicts = iter(
        [_verdict(form, one, prompt, answers) for one, prompt in zip(every, prompts, strict=True)]
    )

    def take(count: int) -> Iterator[JudgeVerdict]:
        return (next(verdicts) for _ in range(count))

    first, swapped = list(take(len(judged))), list(take(len(turned)))
    return Verdicts(form, first, dict(zip(repeated, take(len(repeated)), strict=True)), swapped)


def _verdict(form: str, judged: Judged, prompt: str, answers: Mapping[str, StoredAnswer]) -> JudgeVerdict:
    answer = answers.get(prompt)
    if answer is None:
        digest = hashlib.sha256(prompt.encode(errors="backslashreplace")).hexdigest()
        return JudgeVerdict(judged, digest, "", None, say("没有得到评判", "no verdict came"))
    try:
        return JudgeVerdict(judged, answer.sha256, answer.text, read_verdict(form, judged, answer.text))
    except ValueError as error:
        return JudgeVerdict(judged, answer.sha256, answer.text, None, str(error))


def _score(form: str, verdict: JudgeVerdict) -> float | None:
    if verdict.value is None:
        return None
    if form == CRITERIA:
        return points_share(verdict.judged.criteria, verdict.value["met"])
    return float(sum(verdict.value.values()) / (TOP * len(verdict.value)))


def _of_pair(one: JudgeVerdict, other: JudgeVerdict) -> float | None:
    """Return 1 where the first answer is better in both orders, 0 where the second is, else a tie: a half."""
    if one.value is None or other.value is None:
        return None
    better, turned = one.value["better"], _turned(other.value["better"])
    return {"1": 1.0, "2": 0.0, "tie": 0.5}[better] if better == turned else 0.5


def _turned(better: str) -> str:
    return {"1": "2", "2": "1"}.get(better, better)
