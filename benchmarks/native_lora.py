"""What LoRA beside packed weights costs in the native engine, and what it would cost layer by layer through torch.

    python benchmarks/native_lora.py --json FILE [--bits 4] [--rounds 9]

Two layers of the real width, random weights, an adapter of rank 8 and one of rank 64 on every linear of a layer,
switched by turns in one process; one thread, processor time, medians of ratios. Bar: with rank 8 a token takes at most
1.10 times, a prompt of 256 tokens at most 1.15 times as long as without adapters. The rest is reported without a bar.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from native_decoder import NEVER, Stepper, chatglm, in_engine, llama, prompt
from peft import LoraConfig
from reporting import parser_of, report

from medchat.inference.adapters.lora import activate, inject
from medchat.inference.engine import NativeLinear

RANKS = {"rank8": 8, "rank64": 64}
TOKENS, PROMPT = 8, 256
BARS = {"token": 1.10, "prompt": 1.15}


def timed(stepper: Stepper, ids: Sequence[int]) -> tuple[float, float]:
    """Return the processor seconds of a prompt that is read from its beginning, and of a token behind it."""
    stepper.forget()
    start = time.process_time()
    stepper.prefill(ids, NEVER)
    between = time.process_time()
    for _ in range(TOKENS):
        stepper.advance(9)
    return between - start, (time.process_time() - between) / TOKENS


def compare(family: str, bits: int, rounds: int) -> dict[str, Any]:
    """Return for each adapter, and layer by layer for the first, how many times as long a token and a prompt take."""
    model = {"chatglm": chatglm, "llama": llama}[family](bits)
    layered, native, _ = in_engine(model)
    targets = [name for name, layer in model.named_modules() if isinstance(layer, NativeLinear)]
    targets.remove("lm_head")
    for name, rank in RANKS.items():
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False)
        inject(model, config, name)
    model.eval()
    ids = prompt(model, PROMPT)
    ways: dict[str, tuple[str, Stepper]] = {
        "without": ("", native),
        **{name: (name, native) for name in RANKS},
    }
    ways["rank8 through torch"] = ("rank8", layered)
    taken: dict[str, dict[str, list[float]]] = {what: {way: [] for way in ways} for what in BARS}
    for _ in range(rounds):
        for way, (name, stepper) in ways.items():
            activate(model, [name] if name else [])
            for what, seconds in zip(("prompt", "token"), timed(stepper, ids), strict=True):
                taken[what][way].append(seconds)
    return {what: relative(found) for what, found in taken.items()}


def relative(taken: dict[str, list[float]]) -> dict[str, float]:
    """Return the milliseconds without adapters, and for the other ways how many times as long they take."""
    plain = taken.pop("without")
    ratios = {
        way: statistics.median(one / other for one, other in zip(values, plain, strict=True))
        for way, values in taken.items()
    }
    return {
        "without_ms": round(statistics.median(plain) * 1000, 1),
        **{way: round(ratio, 2) for way, ratio in ratios.items()},
    }


def main() -> int:
    """Compare both families, and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        f"{family} int{given.bits}": compare(family, given.bits, given.rounds)
        for family in ("llama", "chatglm")
    }
    failures = [
        f"{name}, {what}: {found[what]['rank8']} times"
        for name, found in figures.items()
        for what, bar in BARS.items()
        if found[what]["rank8"] > bar
    ]
    return report(
        "native_lora", {f"{what}, rank 8": bar for what, bar in BARS.items()}, figures, failures, given.json
    )


if __name__ == "__main__":
    sys.exit(main())
