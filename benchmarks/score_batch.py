"""What scoring the options of choice questions together saves over one forward pass an option, on both engines.

    python benchmarks/score_batch.py --json FILE [--questions 10000]

A miniature LLaMA, in float32 by torch and in int8 by the native engine, five options a question, both ways by turns on
blocks of questions. Bars for each engine, exit code 1 where one is missed: the time of one pass an option is at least
2.5 times that of a batch; once a tenth of the questions is scored, the rest raises the process's largest memory by less
than 5 %; the native engine's values are those of each option alone, bit by bit.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting import parser_of, report

OPTIONS = ("A", "B", "C", "D", "E")
BLOCK = 100
BAR, MEMORY_BAR = 2.5, 1.05


def question(number: int) -> str:
    """Return a choice question of about 90 characters, no two alike."""
    lines = "\n".join(f"{letter}. 第 {number * 7 % 97 + at} 项检查" for at, letter in enumerate(OPTIONS))
    return f"第 {number} 题：患者，男，{number % 80 + 5} 岁，反复咳嗽、咳痰，首选哪项检查？\n{lines}\n答案："


def peak() -> int:
    """Return the largest memory that the process has had so far, as the system counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_turn(model: Any, prompts: Sequence[Any]) -> tuple[float, float, float]:
    """Score one block both ways; return the processor time of each and the largest difference of a value."""
    start = time.process_time()
    together = model.score_batch(prompts, [OPTIONS] * len(prompts))
    between = time.process_time()
    alone = [[model.score(prompt, option) for option in OPTIONS] for prompt in prompts]
    end = time.process_time()
    pairs = [
        pair for one, other in zip(together, alone, strict=True) for pair in zip(one, other, strict=True)
    ]
    largest = max(abs(left - right) for one, other in pairs for left, right in zip(one, other, strict=True))
    return between - start, end - between, largest


def measure(questions: int, folder: Path) -> dict[str, Any]:
    """Score all questions both ways on both engines; return the figures."""
    import torch
    from medchat_llama.backbone import LlamaBackbone

    from medchat.api import LoadOptions

    torch.set_num_threads(1)
    backbone, options = LlamaBackbone(), LoadOptions(folder, device="cpu", dtype="float32")
    backbone.tiny(folder, corpus=[question(number) for number in range(50)])
    template = backbone.template(options)
    models = {
        "torch": backbone.load(options),
        "native": backbone.load(replace(options, quantize="int8", engine="native")),
    }
    blocks: dict[str, list[tuple[float, float, float]]] = {engine: [] for engine in models}
    early = 0
    for start in range(0, questions, BLOCK):
        numbers = range(start, min(start + BLOCK, questions))
        prompts = [template.render((), question(number)) for number in numbers]
        for engine, model in models.items():
            blocks[engine].append(in_turn(model, prompts))
        early = early or (peak() if start + BLOCK >= questions // 10 else 0)
    figures = {engine: times(found) for engine, found in blocks.items()}
    return {"questions": questions, **figures, "memory_ratio": round(peak() / early, 3)}


def times(blocks: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """Return the seconds of all blocks of one engine both ways, their ratio and the largest difference of a value."""
    together, alone = sum(block[0] for block in blocks), sum(block[1] for block in blocks)
    return {
        "batch_seconds": round(together, 2),
        "one_pass_an_option_seconds": round(alone, 2),
        "ratio": round(alone / together, 2),
        "largest_difference": max(block[2] for block in blocks),
    }


def main() -> int:
    """Measure, report, and return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--questions", type=int, default=10_000, help="how many questions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments.questions, Path(folder) / "tiny")
    failures = [
        f"{engine}: ratio {ratio}"
        for engine in ("torch", "native")
        if (ratio := figures[engine]["ratio"]) < BAR
    ]
    if difference := figures["native"]["largest_difference"]:
        failures.append(f"native: values differ by {difference}")
    if figures["memory_ratio"] > MEMORY_BAR:
        failures.append(f"memory grew to {figures['memory_ratio']} times that of a tenth")
    return report(
        "score_batch", {"ratio": BAR, "memory_ratio": MEMORY_BAR}, figures, failures, arguments.json
    )


if __name__ == "__main__":
    sys.exit(main())
