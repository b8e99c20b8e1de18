"""An opened model as what scores the candidates for choice questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medchat.plugin_kit import OpenedModel, Turn, UsageError
from medchat_eval.choice_prompt import AskedChoice
from medchat_eval.choosing import ScoredAnswers, Scorer


def scorer_of(opened: OpenedModel, examples: Callable[[AskedChoice], Sequence[Turn]]) -> Scorer:
    """Return what scores candidates with `opened`, after the worked examples for each question.

    A question that the context does not hold is refused by itself, and the others continue.
    """

    def score(asked: Sequence[AskedChoice], words: Sequence[Sequence[str]]) -> list[ScoredAnswers]:
        try:
            prompts = [opened.prompt(one.prompt, history=examples(one)) for one in asked]
            values = opened.score_batch(prompts, words)
        except UsageError as error:
            if len(asked) == 1:
                return [ScoredAnswers((), refusal=error.what)]
            return [found for one, mine in zip(asked, words, strict=True) for found in score([one], [mine])]
        return [ScoredAnswers(found, prompt.dropped) for found, prompt in zip(values, prompts, strict=True)]

    return score
