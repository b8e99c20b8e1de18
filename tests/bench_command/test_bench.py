"""`medchat bench`: the figures it gives of answers that took known times, and of a model that runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call
from medchat_bench import command
from medchat_bench.machine import copy_bandwidth
from medchat_bench.measuring import Answered, answered, measured_prompt, summarised
from talking_miniatures import FAMILIES

from medchat.api import Delta, Finish, GenerationConfig
from medchat.errors import UsageError
from medchat.plugin_kit import open_model

pytest_plugins = ("cli_program", "talking_miniatures")


class Clocked:
    """An opened model whose first token comes after 2 seconds and each further one after half a second more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
        self.now, self.tokens, self.model = 100.0, tokens, self
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def stream(self, *_: Any) -> Iterator[Delta]:
        self.now += 2
        for count in range(1, self.tokens + 1):
            yield Delta("字", count, 40)
            yield Delta("", count, 40)  # what brings no token is no moment
            self.now += 0.5
        self.now += 7
        yield Delta("", self.tokens, 40, finish=Finish.LENGTH)


def test_the_rates_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Any = Clocked(monkeypatch, tokens=5)
    one = answered(opened, (), GenerationConfig())
    assert one == Answered(40, 5, 1, 2.0, 4.0)
    assert (one.prompt_rate, one.rate) == (20.0, 2.0)


def test_an_answer_of_one_token_has_no_rate_and_one_of_none_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: Any = Clocked(monkeypatch, tokens=1)
    assert answered(opened, (), GenerationConfig()).rate is None
    opened.tokens = 0
    with pytest.raises(UsageError):
        answered(opened, (), GenerationConfig())


def test_medians_leave_out_the_answers_without_a_rate() -> None:
    runs = [Answered(40, 5, 1, 2.0, 4.0), Answered(41, 1, 1, 1.0, 1.0), Answered(42, 3, 1, 4.0, 8.0)]
    case = summarised(40, runs, [1e9, 3e9, 2e9])
    assert (case.prompt_tokens, case.tokens, case.first_seconds, case.prompt_rate) == (41, 3, 2.0, 20.0)
    assert (case.rate, case.bandwidth, case.runs) == (1.25, 2e9, 3)


def test_the_bandwidth_is_one_that_memory_can_have() -> None:
    assert 1e8 < copy_bandwidth(2) < 1e13


@pytest.mark.torch
def test_prompts_have_the_length_asked_for_and_nothing_of_one_is_kept_for_the_next(talker: Path) -> None:
    with open_model(model=str(talker), max_new_tokens=2, greedy=True) as opened:
        for wanted in (40, 120):
            prompts = [measured_prompt(opened, wanted, run) for run in range(2)]
            assert all(wanted - 3 <= opened.model.count(prompt) <= wanted for prompt in prompts)
            assert prompts[0] != prompts[1]
        with pytest.raises(UsageError, match="位置"):
            measured_prompt(opened, opened.model.context_length, 0)


@pytest.mark.torch
def test_the_command_gives_figures_for_each_length(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("peak_memory", "copy_bandwidth"):
        real = getattr(command, name)
        monkeypatch.setattr(command, name, lambda *given, n=name, f=real: [seen.append(n), f(*given)][1])
    FAMILIES["llama"].tiny(tmp_path / "model")
    flags = ("--model", str(tmp_path / "model"), "--dtype", "float32", "--greedy", "--max-new-tokens", "6")
    done = call("bench", *flags, "--prompt-tokens", "240,160", "--runs", "2", "--json")
    assert done.code == 0, done.err
    # What the bandwidth is measured with takes memory of its own, and is none of the model's.
    assert seen == ["peak_memory", *["copy_bandwidth"] * 4]
    figures = json.loads(done.out)
    assert figures["schema"] == "medchat-bench-1" and figures["machine"]["cores"] >= 1
    model, cases = figures["model"], figures["cases"]
    assert (model["backbone"], model["dtype"], model["engine"]) == ("llama", "float32", "torch")
    assert [case["wanted"] for case in cases] == [160, 240]
    for case in cases:
        assert case["wanted"] - 3 <= case["prompt_tokens"] <= case["wanted"] and case["runs"] == 2
        assert case["prompt_rate"] == pytest.approx(case["prompt_tokens"] / case["first_seconds"], rel=0.5)
        read = case["rate"] * model["weight_bytes"] / case["bandwidth"] if case["rate"] else None
        assert case["share_of_bandwidth"] == (read and pytest.approx(read))
    # All but the embedding, in float32: a token takes one row of that.
    assert 0 < model["weight_bytes"] < 4 * model["parameters"] + 4096

    shown = call("bench", *flags, "--prompt-tokens", "160", "--runs", "1")
    assert shown.code == 0 and "生成（词元/秒）" in shown.out and "| 每个词元要读的权重 |" in shown.out


@pytest.mark.parametrize("lengths", ["", "0", "64,", "64;512", "-1", "1e3", "9999999", ",".join("1" * 17)])
def test_lengths_that_are_none_are_refused_before_anything_is_loaded(call: Call, lengths: str) -> None:
    refused = call("bench", "--model", "nowhere", "--prompt-tokens", lengths)
    assert refused.code == 2 and "--prompt-tokens 64,512" in refused.err
