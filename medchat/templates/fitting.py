"""Making a prompt fit: whole oldest turns are dropped, the question never."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medchat.api import Conversation, PromptTemplate, Segment
from medchat.errors import UsageError
from medchat.language import say


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits. `dropped` counts the oldest turns that are not in it.

    Of these the template would leave out `left_out` however much room there was.
    """

    segments: tuple[Segment, ...]
    tokens: int
    dropped: int
    left_out: int = 0


def fit(
    template: PromptTemplate,
    conversation: Conversation,
    question: str,
    count: Callable[[Sequence[Segment]], int],
    budget: int,
) -> Fitted:
    """Return the prompt for `question` with as many of the latest turns as `budget` tokens hold.

    Counting is the costly part, so it is done once where everything fits and about log2(turns) times
    otherwise. That takes for granted that a prompt never grows by dropping its oldest turn; where it does,
    the result still fits but may hold a turn fewer than it could. Raises UsageError if the question alone
    (with the system text) is over the budget.
    """

    def without(dropped: int) -> Fitted:
        segments = template.render(conversation.turns[dropped:], question, conversation.system)
        return Fitted(segments, count(segments), dropped, left_out)

    too_few = left_out = _left_out(template, conversation, question)
    whole = without(too_few)
    if whole.tokens <= budget:
        return whole
    best = without(len(conversation.turns)) if conversation.turns else whole
    if best.tokens > budget:
        raise _too_long(best.tokens, budget)
    while best.dropped - too_few > 1:
        attempt = without((too_few + best.dropped) // 2)
        if attempt.tokens <= budget:
            best = attempt
        else:
            too_few = attempt.dropped
    return best


def _left_out(template: PromptTemplate, conversation: Conversation, question: str) -> int:
    """Return how many of the oldest turns are not in the prompt anyway: some templates send the latest alone.

    Found by halving: what leaves a turn out leaves out those before it.
    """
    turns, system = conversation.turns, conversation.system
    whole = template.render(turns, question, system)

    def shows(dropped: int) -> bool:
        return template.render(turns[dropped + 1 :], question, system) != whole

    if not turns or shows(0):
        return 0
    return bisect_left(range(len(turns)), True, lo=1, key=shows)


def _too_long(tokens: int, budget: int) -> UsageError:
    return UsageError(
        say(
            f"问题太长：需要 {tokens} 个词元，最多 {budget} 个",
            f"the question is too long: it takes {tokens} tokens, {budget} is the most that fits",
        ),
        say("请缩短问题，或调低 --max-new-tokens", "shorten it, or lower --max-new-tokens"),
    )
