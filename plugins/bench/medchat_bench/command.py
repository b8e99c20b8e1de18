"""`medchat bench`: tokens a second, seconds to the first token, memory, and the share of what memory allows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from medchat.plugin_kit import (
    Document,
    LocalizedCommand,
    OpenedModel,
    Section,
    Table,
    UsageError,
    as_markdown,
    generation_flags,
    model_flags,
    open_model,
    say,
    write_out,
)
from medchat_bench.machine import copy_bandwidth, machine_facts, peak_memory
from medchat_bench.measuring import Case, answered, measured_prompt, summarised

SCHEMA = "medchat-bench-1"
#: Tokens of an answer where nobody chose otherwise.
_NEW_TOKENS = 64
#: The longest prompts that can be asked for, and how many lengths.
_MOST_TOKENS, _MOST_LENGTHS = 1 << 20, 16


#: What the facts about machine and model are called.
_NAMES = {
    "processor": ("处理器", "processor"),
    "cores": ("可用核数", "cores"),
    "system": ("系统", "system"),
    "backbone": ("模型家族", "backbone"),
    "model": ("模型", "model"),
    "dtype": ("精度", "dtype"),
    "device": ("设备", "device"),
    "engine": ("引擎", "engine"),
    "threads": ("线程数", "threads"),
    "parameters": ("参数量", "parameters"),
    "weight_bytes": ("每个词元要读的权重", "weights read per token"),
    "drafted_tokens": ("草稿词元数", "draft tokens"),
    "accepted_tokens": ("采纳的草稿词元数", "draft tokens accepted"),
    "peak_memory_bytes": ("进程内存峰值", "peak memory of the process"),
}


@click.command(
    "bench",
    cls=LocalizedCommand,
    help=say(
        "测速：首个词元要等多久、每秒多少词元、占多少内存，以及达到内存带宽上限的几成。",
        "Measure speed: seconds to the first token, tokens a second, memory, and the share of what the memory's"
        " bandwidth allows.",
    ),
)
@click.option(
    "--prompt-tokens",
    metavar="N,…",
    default="64,512",
    show_default=True,
    help=say("提示词的长度（词元），可写多个", "lengths of the prompts in tokens"),
)
@click.option(
    "--runs",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help=say("每种长度测几次，取中位数", "measured answers for each length; medians count"),
)
@click.option("--json", "as_json", is_flag=True, help=say("输出 JSON", "write JSON"))
@model_flags
@generation_flags
def bench(prompt_tokens: str, runs: int, as_json: bool, **flags: Any) -> int:
    """Measure and write the figures."""
    lengths = _lengths(prompt_tokens)
    if flags.get("max_new_tokens") is None:
        flags["max_new_tokens"] = _NEW_TOKENS
    if flags.get("speculate") is None:
        flags["speculate"] = "off"  # the machine is measured, not how often a prompt repeats itself
    with open_model(flags) as opened:
        threads = int(opened.model.describe().get("threads") or machine_facts()["cores"])
        peak, cases = _measured(opened, lengths, runs, threads)
        figures = _figures(opened.model.describe(), cases, peak)
    if as_json:
        return write_out(json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
    return write_out(as_markdown(_document(figures)))


def _lengths(text: str) -> list[int]:
    lengths = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    good = lengths and len(lengths) == text.count(",") + 1 <= _MOST_LENGTHS
    if not good or not all(0 < length <= _MOST_TOKENS for length in lengths):
        raise UsageError(
            say(f"--prompt-tokens 无效：{text}", f"--prompt-tokens cannot be {text!r}"),
            say("例如 --prompt-tokens 64,512", "for example --prompt-tokens 64,512"),
        )
    return sorted(set(lengths))


def _measured(opened: OpenedModel, lengths: Sequence[int], runs: int, threads: int) -> tuple[int, list[Case]]:
    """Measure each length in turn, and the bandwidth before each answer. Returns the peak of memory and the cases.

    The first answer of all, to the longest prompt, is not counted. It takes the most memory, which is read behind it:
    measuring the bandwidth takes memory too.
    """
    config, cases = opened.chat().config, []
    prompts = {length: [measured_prompt(opened, length, run) for run in range(runs)] for length in lengths}
    _say_progress(say("预热……", "warming up …"))
    answered(opened, measured_prompt(opened, lengths[-1], runs), config)
    peak = peak_memory()
    for length in lengths:
        answers, bandwidths = [], []
        for run, segments in enumerate(prompts[length], start=1):
            _say_progress(
                say(f"{length} 个词元：第 {run}/{runs} 次", f"{length} tokens: run {run} of {runs}")
            )
            bandwidths.append(copy_bandwidth(threads))
            answers.append(answered(opened, segments, config))
        cases.append(summarised(length, answers, bandwidths))
    return peak, cases


def _say_progress(text: str) -> None:
    click.echo(text, err=True)


def _figures(described: Mapping[str, Any], cases: Sequence[Case], peak: int) -> dict[str, Any]:
    names = [name for name in _NAMES if name not in ("processor", "cores", "system")]
    weights = described.get("weight_bytes") if described.get("device") == "cpu" else None
    return {
        "schema": SCHEMA,
        "machine": machine_facts(),
        "model": {name: described[name] for name in names if name in described},
        "peak_memory_bytes": peak,
        "cases": [{**asdict(case), "share_of_bandwidth": _share(case, weights)} for case in cases],
    }


def _share(case: Case, weight_bytes: int | None) -> float | None:
    """Return the share of the bandwidth that reading all weights once a token takes; None where that is not known."""
    if case.rate is None or not weight_bytes:
        return None
    return case.rate * weight_bytes / case.bandwidth


def _document(figures: Mapping[str, Any]) -> Document:
    heads = (
        say("提示词（词元）", "prompt tokens"),
        say("首个词元（秒）", "first token (s)"),
        say("读提示词（词元/秒）", "prompt tokens/s"),
        say("回答（词元）", "answer tokens"),
        say("生成（词元/秒）", "tokens/s"),
        say("内存带宽（GB/秒）", "memory GB/s"),
        say("占上限", "of the ceiling"),
    )
    rows = [
        (
            str(case["prompt_tokens"]),
            f"{case['first_seconds']:.3f}",
            f"{case['prompt_rate']:.1f}",
            str(case["tokens"]),
            "—" if case["rate"] is None else f"{case['rate']:.1f}",
            f"{case['bandwidth'] / 1e9:.1f}",
            "—" if case["share_of_bandwidth"] is None else f"{case['share_of_bandwidth']:.0%}",
        )
        for case in figures["cases"]
    ]
    facts = {**figures["machine"], **figures["model"], "peak_memory_bytes": figures["peak_memory_bytes"]}
    medians = Table(heads, rows, numbers=tuple(range(len(heads))))
    conditions = Table((say("条件", "condition"), say("值", "value")), list(_named(facts)))
    return Document(
        say("测速", "speed"),
        [
            Section(say("中位数", "medians"), [medians]),
            Section(say("机器与模型", "machine and model"), [conditions]),
        ],
    )


def _named(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        shown = f"{value / 1e6:,.1f} MB" if name.endswith("_bytes") else str(value)
        yield say(*_NAMES[name]), shown
