"""The rates that an endpoint is asked at: requests and tokens a minute, measured where they arrive."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from medchat_remote.pace import Bucket
from openai_server import Asked, OpenAIServer, Reply, refusal
from remote_models import ANSWER, Load, ask, text_of

from medchat.api import GenerationConfig

pytest_plugins = ("remote_models",)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("per_minute", [1, 2, 59, 60, 61, 600, 6000])
def test_no_minute_brings_more_than_the_rate_and_none_much_less(per_minute: int) -> None:
    clock = Clock()
    bucket, taken = Bucket(per_minute, clock), []
    while clock.now < 180:
        if wait := bucket.take(1):
            clock.now += wait
        else:
            taken.append(clock.now)
    for start in (0, taken[len(taken) // 3], 60.5, 100):
        count = sum(start <= at < start + 60 - 1e-6 for at in taken)
        assert count <= per_minute
        assert start == 0 or count >= per_minute * 0.97 - 1


def test_more_than_a_bucket_holds_is_given_and_missing_afterwards() -> None:
    clock = Clock()
    bucket = Bucket(600, clock)
    assert bucket.take(100) == 0.0
    assert bucket.take(1) == pytest.approx(91 / (591 / 60))
    bucket.give_back(100)
    assert bucket.take(10) == 0.0


def arrivals(server: OpenAIServer) -> list[float]:
    """Note when questions arrive from now on."""
    found: list[float] = []
    usual = server.reply_to

    def note(asked: Asked) -> Reply:
        found.append(time.monotonic())
        return usual(asked)

    server.reply_to = note
    return found


def test_requests_arrive_at_the_rate_those_that_are_refused_and_asked_again_among_them(
    server: OpenAIServer, load: Load
) -> None:
    server.script.extend([refusal(429, "slow down", retry_after="0"), refusal(500, "broken")] * 2)
    times = arrivals(server)
    model = load(extra={"rpm": 3000})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: text_of(ask(model)), range(70)))
    assert answers == [ANSWER] * 70 and len(times) == 74
    # One second's worth (50) may come at once; the rest at 50 a second.
    assert times[-1] - times[0] > (74 - 51) / 50 * 0.9


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 10, "completion_tokens": 5}])
def test_tokens_that_an_answer_leaves_are_there_for_others(
    server: OpenAIServer, load: Load, usage: dict[str, int] | None
) -> None:
    server.usual = Reply(pieces=(ANSWER,), usage=usage)
    model = load(extra={"tpm": 60_000})
    started = time.monotonic()
    for _ in range(3):
        ask(model, GenerationConfig(max_new_tokens=1000))
    # 1020 tokens are kept for each: the second waits for a second's worth where the server states no counts.
    assert (time.monotonic() - started > 1.5) is (usage is None)


def test_two_callers_are_answered_at_the_same_time(server: OpenAIServer, load: Load) -> None:
    server.usual = Reply(pieces=("慢", 0.2, "答"))
    model = load()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: text_of(ask(model)), range(4))) == ["慢答"] * 4
    assert server.most_under_way == 4
