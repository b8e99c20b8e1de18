"""How long the red-flag rules take, before the model is asked.

    python benchmarks/red_flags.py --json FILE [--runs 20]

Bars, exit code 1 where one is missed (processor time of this process, medians):
- a message of 200 characters: under 1 ms; one of 10,000: under 10 ms; the second at most 60 times the first;
- nothing of the lexicon is read before the first question; reading it takes at most 500 ms.

Three kinds of text: everyday questions, an emergency among everyday words, and English.
"""

from __future__ import annotations

import statistics
import sys
import time

from reporting import parser_of, report

SHORT, LONG = 200, 10_000
SHORT_BAR_MS, LONG_BAR_MS, RATIO_BAR, LOADING_BAR_MS = 1.0, 10.0, 60.0, 500.0

EVERYDAY = (
    "最近工作比较忙，晚上睡不好，白天没有精神，请问饮食上要注意什么？平时喜欢吃米饭和青菜，偶尔喝点茶。"
    "孩子上小学三年级，个子比同学矮一些，需要去医院查骨龄吗？体检报告说尿酸有一点高，应该怎么调整？"
)
TEXTS = {
    "everyday": EVERYDAY,
    "an emergency": EVERYDAY + "我爸刚才突然胸口疼，出了一身冷汗，喘不上气，怎么办？" + EVERYDAY,
    "English": "I have been sleeping badly since I changed my job and my doctor told me to walk more every day. "
    "Should I take vitamins, and is it normal to feel tired in the afternoon? ",
}


def of_length(text: str, length: int) -> str:
    """Return the text, repeated and cut to this length."""
    return (text * (length // len(text) + 1))[:length]


def milliseconds(text: str, runs: int) -> float:
    """Return the median processor time of looking at a text."""
    from medchat.medical_safety import find_red_flags

    times = []
    for _ in range(runs):
        start = time.process_time()
        find_red_flags(text)
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times)


def loading_milliseconds() -> float:
    """Return the processor time of the first question; the lexicon must not have been read before it."""
    from medchat.medical_safety import find_red_flags
    from medchat.medical_safety.lexicon_files import load_lexicon

    if load_lexicon.cache_info().currsize:
        raise RuntimeError("the lexicon was read before the first question")
    start = time.process_time()
    find_red_flags("你好")
    return (time.process_time() - start) * 1000


def main() -> int:
    """Measure, report, and return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each text")
    arguments = parser.parse_args()
    loading = loading_milliseconds()
    figures: dict[str, dict[str, float]] = {}
    failures = [f"the first question takes {loading:.0f} ms"] if loading > LOADING_BAR_MS else []
    for name, text in TEXTS.items():
        milliseconds(of_length(text, LONG), 1)  # the automaton learns the text's words
        short = milliseconds(of_length(text, SHORT), arguments.runs * 10)
        long = milliseconds(of_length(text, LONG), arguments.runs)
        figures[name] = {
            "short_ms": round(short, 3),
            "long_ms": round(long, 2),
            "ratio": round(long / short, 1),
        }
        failures += [f"{name}: {SHORT} characters take {short:.2f} ms"] if short > SHORT_BAR_MS else []
        failures += [f"{name}: {LONG} characters take {long:.1f} ms"] if long > LONG_BAR_MS else []
        failures += [f"{name}: ratio {long / short:.1f}"] if long > RATIO_BAR * short else []
    bars = {
        "short_ms": SHORT_BAR_MS,
        "long_ms": LONG_BAR_MS,
        "ratio": RATIO_BAR,
        "loading_ms": LOADING_BAR_MS,
    }
    found = {"runs": arguments.runs, "loading_ms": round(loading, 1), "texts": figures}
    return report("red_flags", bars, found, failures, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
