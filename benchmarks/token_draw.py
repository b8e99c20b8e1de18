"""What it costs to choose a token from the logits of a whole vocabulary, beside a full sort.

    python benchmarks/token_draw.py --json FILE [--rounds 51]

Bar, exit code 1 where it is missed: from 150528 float32 logits as steep as a model's a token is chosen within 1.5 ms,
with the default settings, without top-p, with top-k, with a repetition penalty over 1000 tokens, and greedily. Flat
logits and those of bfloat16 models, where equal ones may leave a choice to the sort, are reported without a bar. Every
way gets logits that were just written, as a model's head leaves them. Processor time of one thread, medians; the ways
take turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from reporting import parser_of, report
from torch import Tensor

from medchat.api import GenerationConfig
from medchat.inference.reference_draw import reference_draw
from medchat.inference.sampling import TokenChooser
from medchat.inference.twister import Twister

ROWS = (150528, 32000)
#: Standard deviation of the logits: of a model they reach from about -15 to 25; those of 1 are flat.
STEEP, FLAT = 5.0, 1.0
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "top_p 1": {"top_p": 1.0},
    "top_k 50": {"top_k": 50},
    "repetition penalty": {"repetition_penalty": 1.1},
    "greedy": {"greedy": True},
}
BARS = dict.fromkeys(SETTINGS, 1.5)
PROMPT = 1000


def milliseconds(logits: list[Tensor]) -> dict[str, float]:
    """Return the median time of one choice by setting, and of the full sort with the default settings."""
    choosers = {
        name: TokenChooser(GenerationConfig(seed=1, **some), range(PROMPT)) for name, some in SETTINGS.items()
    }
    default, generator = GenerationConfig(), Twister(1)
    ways = {name: chooser.choose for name, chooser in choosers.items()}
    ways["default, full sort"] = lambda row: reference_draw(
        row.float().numpy(), default.temperature, default.top_k, default.top_p, generator
    )
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for row in logits:
        for name, choose in ways.items():
            written = row.clone()
            start = time.process_time()
            choose(written)
            taken[name].append((time.process_time() - start) * 1000)
    return {name: round(statistics.median(values), 2) for name, values in taken.items()}


def main() -> int:
    """Time every kind of logits and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=51)
    given = parser.parse_args()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    figures: dict[str, Any] = {}
    for size in ROWS:
        for name, spread, dtype in (
            ("float32", STEEP, torch.float32),
            ("bfloat16", STEEP, torch.bfloat16),
            ("flat", FLAT, torch.float32),
        ):
            logits = [torch.randn(size, generator=random).mul_(spread).to(dtype) for _ in range(given.rounds)]
            figures[f"{size} rows, {name}"] = milliseconds(logits)
    found = figures[f"{ROWS[0]} rows, float32"]
    failures = [f"{name}: {found[name]} ms" for name, bar in BARS.items() if found[name] > bar]
    return report("token_draw", {"milliseconds": BARS}, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
