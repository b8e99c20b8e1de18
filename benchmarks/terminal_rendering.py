"""What drawing an answer costs as the answer grows, shape by shape: lists, tables, code, quotations.

    python benchmarks/terminal_rendering.py --json FILE [--lines 800]

Bar, exit code 1 where it is missed: `--lines` lines take at most 2.5 times the CPU of half as many, the least
of five runs each, by turns, so that a machine that gets busy slows both. An answer comes in pieces of six
characters, as fast as it can be drawn.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

from reporting import parser_of, report

from medchat.repl.rich_screen import RichScreen

RATIO_BAR = 2.5
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


def main() -> int:
    """Draw each shape at half and at full length and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--lines", type=int, default=800)
    given = parser.parse_args()
    cpu_seconds(SHAPES["list"](10))  # imports
    figures, failures = {}, []
    for name, shape in SHAPES.items():
        half, whole = least_seconds(shape(given.lines // 2), shape(given.lines))
        ratio = whole / max(half, LEAST_SECONDS)
        figures[name] = {"half_seconds": round(half, 3), "seconds": round(whole, 3), "ratio": round(ratio, 2)}
        if ratio > RATIO_BAR:
            failures.append(f"{name}: {ratio:.2f} times the CPU of half the text")
    return report(
        "terminal_rendering",
        {"ratio": RATIO_BAR},
        {"lines": given.lines, "shapes": figures},
        failures,
        given.json,
    )


if __name__ == "__main__":
    sys.exit(main())
