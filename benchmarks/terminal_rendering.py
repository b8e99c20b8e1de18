"""What drawing an answer costs at 80 columns, in processor time and in bytes written.

    python benchmarks/terminal_rendering.py --json FILE [--lines 800] [--tokens 4000]

Bars, exit code 1 where one is missed; times are the least of five runs, by turns, so that a machine that gets busy
slows all:
- an answer of `--tokens` tokens with headings, paragraphs, lists and tables, 30 tokens a second by a clock of its
  own: under 1 ms a token, at most 2.2 times the time of half of it, and at most 3 bytes written for one of text;
- a single list, table, code block and so on of `--lines` lines, as fast as it can be drawn: at most 2.5 times the
  time of half as many.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain, count, cycle, islice

from reporting import parser_of, report

from medchat.repl.rich_screen import RichScreen

RATIO_BAR, ANSWER_RATIO_BAR, TOKEN_BAR_MS, BYTES_BAR = 2.5, 2.2, 1.0, 3.0
RATE = 30
#: Characters of one token after another, as a Chinese vocabulary has them.
TOKEN_LENGTHS = (1, 2, 2, 1, 2)
RUNS = 5
#: Below this a clock tick is a large part of the figure.
LEAST_SECONDS = 0.02
PIECE = 6

SHAPES: dict[str, Callable[[int], str]] = {
    "list": lambda n: "".join(f"- 第 {i} 条建议：多喝水，注意休息，按时吃药。\n" for i in range(n)),
    "nested list": lambda n: "".join("  " * (i % 4) + f"- 第 {i} 条建议：多喝水。\n" for i in range(n)),
    "table": lambda n: "| 药 | 剂量 |\n|---|---|\n" + "".join(f"| 药{i} | {i} mg |\n" for i in range(n)),
    "table of many columns": lambda n: "".join(f"{cell * n}|\n" for cell in ("| 药", "|---", "| 甲")),
    "code": lambda n: "```python\n" + "".join(f"x = {i}  # 注意休息\n" for i in range(n)) + "```\n",
    "quotation": lambda n: "".join(f"> 第 {i} 行：多喝水，注意休息。\n" for i in range(n)),
    "lines of one paragraph": lambda n: "".join(f"第 {i} 行：多喝水，注意休息。\n" for i in range(n)),
    "one long line": lambda n: "患者应当多喝水，注意休息。" * n,
    "paragraphs": lambda n: "".join(f"第 {i} 段：**多喝水**，注意休息。\n\n" for i in range(n)),
}


ANSWER = """## 第 {number} 部分：头痛的处理

先看**有没有危险信号**：突然剧烈头痛、发热、颈部僵硬、视物模糊。有其中一项，请尽快就诊；没有的话，可以先休息、补水，记录发作时间和诱因。

- 多喝水，每天一千五百毫升以上。
- 规律睡眠，避免熬夜，`按时` 起床。
- 减少屏幕时间，每小时休息十分钟。
  - 室内光线要柔和。
  - 眼睛干涩时可用人工泪液。

| 药物 | 剂量 | 注意 |
|---|---|---|
| 对乙酰氨基酚 | 500 mg | 每天不超过 2 g |
| 布洛芬 | 200 mg | 饭后服用 |
| 阿司匹林 | 300 mg | 儿童禁用 |

1. 先休息半小时。
2. 测一次体温和血压。
3. 不缓解再服药，并记下时间。

"""


def answer(tokens: int) -> list[str]:
    """Return the tokens of an answer."""
    sections = (ANSWER.format(number=number) for number in count(1))
    characters = chain.from_iterable(sections)
    return ["".join(islice(characters, length)) for length in islice(cycle(TOKEN_LENGTHS), tokens)]


class Pace:
    """A clock that continues by one token each time that one comes, however long drawing takes."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the seconds since the first token."""
        return self.now

    def next(self) -> None:
        """Let the next token come."""
        self.now += self._step


def cost_of_answer(tokens: Sequence[str], rate: float = RATE) -> tuple[float, int]:
    """Return the processor time in which an answer is drawn that comes at this rate, and the bytes written."""
    stream, pace = io.StringIO(), Pace(rate)
    screen = RichScreen(stream, width=80, clock=pace.monotonic)
    began = time.process_time()
    for token in tokens:
        pace.next()
        screen.piece(token)
    screen.end_answer()
    return time.process_time() - began, len(stream.getvalue().encode())


def cpu_seconds(text: str) -> float:
    """Return the CPU time in which `text` is drawn at 80 columns."""
    screen = RichScreen(io.StringIO(), width=80)
    began = time.process_time()
    for start in range(0, len(text), PIECE):
        screen.piece(text[start : start + PIECE])
    screen.end_answer()
    return time.process_time() - began


def least_seconds(*texts: str) -> list[float]:
    """Return the least CPU time of some runs for each of the texts, drawn by turns."""
    runs = [[cpu_seconds(text) for text in texts] for _ in range(RUNS)]
    return [min(taken) for taken in zip(*runs, strict=True)]


def figures_of_answer(tokens: int) -> tuple[dict[str, float], list[str]]:
    """Draw an answer at half and at full length; return the figures and what misses its bar."""
    whole, half = answer(tokens), answer(tokens // 2)
    runs = [(cost_of_answer(half), cost_of_answer(whole)) for _ in range(RUNS)]
    half_seconds, seconds = (min(run[at][0] for run in runs) for at in (0, 1))
    figures = {
        "ms_a_token": seconds * 1000 / tokens,
        "ratio": seconds / half_seconds,
        "bytes_for_one_of_text": runs[0][1][1] / len("".join(whole).encode()),
    }
    bars = zip(figures.items(), (TOKEN_BAR_MS, ANSWER_RATIO_BAR, BYTES_BAR), strict=True)
    missed = [f"answer: {name} {figure:.2f}" for (name, figure), bar in bars if figure > bar]
    return {name: round(figure, 3) for name, figure in figures.items()}, missed


def main() -> int:
    """Draw an answer and each shape, at half and at full length, and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--lines", type=int, default=800)
    parser.add_argument("--tokens", type=int, default=4000)
    given = parser.parse_args()
    cpu_seconds(SHAPES["list"](10))  # imports
    mixed, failures = figures_of_answer(given.tokens)
    figures = {}
    for name, shape in SHAPES.items():
        half, whole = least_seconds(shape(given.lines // 2), shape(given.lines))
        ratio = whole / max(half, LEAST_SECONDS)
        figures[name] = {"half_seconds": round(half, 3), "seconds": round(whole, 3), "ratio": round(ratio, 2)}
        if ratio > RATIO_BAR:
            failures.append(f"{name}: {ratio:.2f} times the CPU of half the text")
    return report(
        "terminal_rendering",
        {
            "ratio": RATIO_BAR,
            "answer": {"ms_a_token": TOKEN_BAR_MS, "ratio": ANSWER_RATIO_BAR, "bytes": BYTES_BAR},
        },
        {"tokens": given.tokens, "answer": mixed, "lines": given.lines, "shapes": figures},
        failures,
        given.json,
    )


if __name__ == "__main__":
    sys.exit(main())
