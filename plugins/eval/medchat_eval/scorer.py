"""An opened model as what scores candidates: for choice questions, and for prompts of any kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medchat.plugin_kit import OpenedModel, Turn, UsageError
from medchat_eval.choice_prompt import AskedChoice
from medchat_eval.choosing import ScoredAnswers, Scorer
from medchat_eval.replies import Prompt


def scorer_of(opened: OpenedModel, examples: Callable[[AskedChoice], Sequence[Turn]]) -> Scorer:
    """Return what scores candidates with `opened`, after the worked examples for each question."""

    def score(asked: Sequence[AskedChoice], words: Sequence[Sequence[str]]) -> list[ScoredAnswers]:
        return score_prompts(opened, [Prompt(one.prompt, tuple(examples(one))) for one in asked], words)

    return score


def score_prompts(
    opened: OpenedModel, prompts: Sequence[Prompt], words: Sequence[Sequence[str]]
) -> list[ScoredAnswers]:
    """Return what the candidates for each prompt score.

    A prompt that the context does not hold is refused by itself, and the others continue.
    """
    try:
        fitted = [opened.prompt(one.text, history=one.turns) for one in prompts]
        values = opened.score_batch(fitted, words)
    except UsageError as error:
        if len(prompts) == 1:
            return [ScoredAnswers((), refusal=error.what)]
        return [
            found
            for one, mine in zip(prompts, words, strict=True)
            for found in score_prompts(opened, [one], [mine])
        ]
    return [ScoredAnswers(found, prompt.dropped) for found, prompt in zip(values, fitted, strict=True)]
