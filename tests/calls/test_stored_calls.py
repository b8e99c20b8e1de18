"""Calls whose answers are kept: asked once, on disk as they come, within the budget, whatever the server does."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import medchat_remote.connection
import pytest
from openai_server import Asked, OpenAIServer, Reply, refusal
from plugin_sites import echo_site
from remote_models import QUICK

from medchat.errors import DataError, UsageError
from medchat.plugin_kit import CallLimits, StoredCalls, open_calls, open_model
from medchat.registry import Registry

pytest_plugins = ("plugin_sites", "remote_models")

PROMPTS = tuple(f"第{number}问" for number in range(24))
#: Prices that make a prompt token cost 1 and an answer token 10.
PRICES = {"price_in": 1e6, "price_out": 1e7}

Ask = Callable[..., StoredCalls]


@pytest.fixture
def ask(server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Give a function that asks all prompts of the test's server, and returns the calls with `answers` in them."""
    monkeypatch.setattr(medchat_remote.connection, "RetrySchedule", lambda: QUICK)

    def asker(*, resume: bool = False, max_new_tokens: int = 50, **limits: float) -> StoredCalls:
        bounds = CallLimits(**limits)  # type: ignore[arg-type]
        opening = open_model(
            backbone="remote",
            model=f"{server.url}#tiny",
            max_new_tokens=max_new_tokens,
            option=bounds.options,
        )
        with opening as opened, open_calls(tmp_path / "calls.jsonl", opened, bounds, resume=resume) as calls:
            calls.answer(PROMPTS)
            return calls

    server.reply_to = lambda asked: Reply(pieces=(f"答：{prompt_of(asked)}",))
    yield asker


def prompt_of(asked: Asked) -> str:
    return str(asked.body["messages"][-1]["content"])


def stored(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_prompt_is_asked_once_several_at_a_time_and_never_again(
    server: OpenAIServer, ask: Ask, tmp_path: Path
) -> None:
    meeting, number = threading.Barrier(8), itertools.count()

    def reply(asked: Asked) -> Reply:
        if next(number) < 8:  # none of the first eight is answered before all of them have come
            meeting.wait(timeout=30)
        return Reply(pieces=(f"答：{prompt_of(asked)}",))

    server.reply_to = reply
    calls = ask(concurrency=8)
    assert Counter(map(prompt_of, server.questions)) == dict.fromkeys(PROMPTS, 1)
    assert not meeting.broken and server.most_under_way <= 8
    assert {row["prompt"]: row["answer"] for row in stored(tmp_path)} == {
        one: f"答：{one}" for one in PROMPTS
    }
    assert not calls.failures and not calls.over_budget
    assert (tmp_path / "calls.jsonl").stat().st_mode & 0o777 == 0o600
    server.seen.clear()
    again = ask(resume=True).answer(PROMPTS)
    assert [again[prompt].text for prompt in PROMPTS] == [f"答：{one}" for one in PROMPTS]
    assert not server.questions


def test_a_call_that_breaks_off_or_is_refused_for_a_while_is_asked_again(
    server: OpenAIServer, ask: Ask, tmp_path: Path
) -> None:
    seen: Counter[str] = Counter()
    faults = [
        Reply(pieces=("答：", "第"), cut=True),
        refusal(500, "broken"),
        refusal(429, "slow down", retry_after="0"),
        Reply(pieces=("半",), reset=True),
    ]

    def reply(asked: Asked) -> Reply:
        prompt = prompt_of(asked)
        with server.lock:
            seen[prompt] += 1
        number = PROMPTS.index(prompt)
        fails = number % 3 == 0 and seen[prompt] <= 1 + number % 2
        return faults[(number + seen[prompt]) % 4] if fails else Reply(pieces=(f"答：{prompt}",))

    server.reply_to = reply
    calls = ask(concurrency=4)
    assert {row["prompt"]: row["answer"] for row in stored(tmp_path)} == {
        one: f"答：{one}" for one in PROMPTS
    }
    assert not calls.failures and max(seen.values()) > 1


def test_a_call_that_keeps_failing_is_left_out_with_its_reason_and_asked_again_by_a_later_run(
    server: OpenAIServer, ask: Ask, tmp_path: Path
) -> None:
    server.reply_to = lambda asked: (
        Reply(pieces=("半",), cut=True) if prompt_of(asked) == PROMPTS[5] else Reply(pieces=("答",))
    )
    calls = ask(concurrency=4)
    assert list(calls.failures) == [PROMPTS[5]] and calls.failures[PROMPTS[5]].what
    assert len(stored(tmp_path)) == len(PROMPTS) - 1
    server.reply_to = lambda asked: Reply(pieces=("终于",))
    server.seen.clear()
    assert not ask(resume=True).failures
    assert list(map(prompt_of, server.questions)) == [PROMPTS[5]]


def test_a_server_that_fails_every_call_ends_the_run_soon(server: OpenAIServer, ask: Ask) -> None:
    server.reply_to = lambda asked: refusal(401, "no key")
    with pytest.raises(UsageError):
        ask(concurrency=2)
    assert len(server.questions) <= 5


def test_an_interrupted_run_keeps_what_had_come(
    server: OpenAIServer, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medchat.calls.callers as module

    rounds, waiting = Counter[str](), module.wait

    def interrupted(*given: object, **more: object) -> object:
        rounds["wait"] += 1
        if rounds["wait"] == 4:
            raise KeyboardInterrupt
        return waiting(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(concurrency=1)
    assert 3 <= len(stored(tmp_path)) <= 5
    monkeypatch.undo()
    server.seen.clear()
    kept = {row["prompt"] for row in stored(tmp_path)}
    ask(resume=True)
    assert not kept.intersection(map(prompt_of, server.questions))


# ---------------------------------------------------------------- money


def usage_cost(server: OpenAIServer, each: dict[str, int]) -> float:
    return len(server.questions) * (each["prompt_tokens"] + 10 * each["completion_tokens"])


@pytest.mark.parametrize("concurrency", [1, 8])
def test_no_call_is_made_that_could_pass_the_budget(
    server: OpenAIServer, ask: Ask, tmp_path: Path, concurrency: int
) -> None:
    each = {"prompt_tokens": 20, "completion_tokens": 30}
    server.reply_to = lambda asked: Reply(pieces=("答",), usage=each)
    calls = ask(concurrency=concurrency, budget=3000, **PRICES)
    cost = usage_cost(server, each)
    assert calls.over_budget and calls.cost == cost
    # The last call kept from going could have cost 24 + 10 * 50.
    assert 3000 - 524 < cost <= 3000
    server.seen.clear()
    again = ask(concurrency=concurrency, resume=True, budget=3000, **PRICES)
    assert again.over_budget and not server.questions
    assert not ask(resume=True, budget=1e6, **PRICES).over_budget
    assert len(stored(tmp_path)) == len(PROMPTS)


def test_a_server_that_counts_more_tokens_than_expected_is_believed(server: OpenAIServer, ask: Ask) -> None:
    each = {"prompt_tokens": 400, "completion_tokens": 1}
    server.reply_to = lambda asked: Reply(pieces=("答",), usage=each)
    assert ask(budget=1000, max_new_tokens=1, **PRICES).over_budget
    assert usage_cost(server, each) == 2 * 410


def test_a_failed_call_counts_as_much_as_it_could_have_cost(server: OpenAIServer, ask: Ask) -> None:
    each = {"prompt_tokens": 20, "completion_tokens": 30}
    server.reply_to = lambda asked: (
        Reply(pieces=("半",), cut=True)
        if prompt_of(asked) == PROMPTS[5]
        else Reply(pieces=("答",), usage=each)
    )
    calls = ask(budget=1e6, **PRICES)
    assert calls.cost == pytest.approx((len(PROMPTS) - 1) * 320 + 3 * (23 + 50 * 10))


def test_the_endpoints_own_prices_count_where_the_user_gives_none(server: OpenAIServer, ask: Ask) -> None:
    server.models = {"data": [{"id": "tiny", "pricing": {"prompt": "1", "completion": "10"}}]}
    server.reply_to = lambda asked: Reply(
        pieces=("答",), usage={"prompt_tokens": 20, "completion_tokens": 30}
    )
    assert ask(budget=2000).over_budget
    server.models = {"data": [{"id": "tiny"}]}
    with pytest.raises(UsageError, match="--budget"):
        ask(budget=2000, resume=True)


def test_one_price_without_the_other_is_refused() -> None:
    with pytest.raises(UsageError):
        CallLimits.from_flags({"price_in": 1.0, "concurrency": 2})
    limits = CallLimits.from_flags(
        {"price_in": 1.0, "price_out": 2.0, "concurrency": 2, "rpm": 5, "tpm": None}
    )
    assert limits == CallLimits(2, 5, None, 1.0, 2.0) and limits.options == ("rpm=5",)


# ---------------------------------------------------------------- what does not belong together


def test_answers_of_other_settings_are_not_mixed_in(ask: Ask, server: OpenAIServer) -> None:
    ask()
    server.seen.clear()
    with pytest.raises(UsageError, match="decoding"):
        ask(resume=True, max_new_tokens=51)
    assert not server.questions


def test_a_file_of_other_lines_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text('{"index": 0, "question": "q", "answer": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="index 0"):
        ask(resume=True)


def test_a_model_that_takes_one_caller_is_asked_one_at_a_time(site: Path, tmp_path: Path) -> None:
    echo_site(site)
    Registry().backbone("echo").tiny(tmp_path / "model")
    threads = set()
    path = tmp_path / "calls.jsonl"
    with (
        open_model(backbone="echo", model=str(tmp_path / "model")) as opened,
        open_calls(path, opened, CallLimits(concurrency=8)) as calls,
    ):
        stream = opened.model.stream

        def watched(*given: object) -> object:
            threads.add(threading.get_ident())
            return stream(*given)  # type: ignore[arg-type]

        opened.model.stream = watched  # type: ignore[method-assign, assignment]
        answers = calls.answer(PROMPTS)
        estimate = calls.estimate([*PROMPTS, "新的"])
    assert [answers[prompt].text for prompt in PROMPTS] == list(PROMPTS) and len(threads) == 1
    assert (estimate.calls, estimate.cost) == (1, None) and estimate.prompt_tokens >= 2
