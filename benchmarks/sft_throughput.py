"""Fine-tuning as the seeds did it against fine-tuning as MedChat does: tokens a second, memory, and the same losses.

    python benchmarks/sft_throughput.py --json FILE [--rounds 3] [--records 128] [--family llama|chatglm]

Both arms take the same records, model, seeds and HF Trainer, in fresh processes by turns (A B A B …). Tokens are
counted without padding. Time runs from the first batch asked for to the last optimizer step.

- seeds: random order, each batch padded to its longest record, logits at every position, the model's own loss;
- ours: `medchat.training.train.train`.

The same per second of CPU time is reported beside it: what the machine does besides moves that less.

Bars, exit code 1 where one is missed, each family by itself:
- ours over seeds, tokens a second: median of the rounds >= 2.2, worst >= 1.8;
- peak memory of ours over that of seeds <= 0.5, median of the rounds. Peak = the highest resident size (VmHWM)
  of the process up to the end of training, less its resident size (VmRSS) with everything imported and the
  records read, before the model was made: weights, gradients, optimizer states and activations, no libraries;
- on the same batches in float64 every step's loss differs by at most 1e-5.

llama: LoRA on q_proj and v_proj (BenTsao's method), 151936 rows. chatglm: every weight (Med-ChatGLM's), 130528 rows.
Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from loading_figures import copy_bandwidth, run_child, source_folders
from reporting import parser_of, report

FAMILIES = ("llama", "chatglm")
ARMS = ("seeds", "ours")
MEDIAN_BAR, WORST_BAR, MEMORY_BAR, LOSS_BAR = 2.2, 1.8, 0.5, 1e-5
#: A width at which float64 steps over a real vocabulary take seconds.
NARROW = {"hidden": 64, "layers": 2, "records": 48}


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one arm, or the comparison of losses, in this process."""
    sys.path[:0] = map(str, source_folders())
    import sft_arms

    if arguments.losses:
        return sft_arms.compare_losses(arguments.family, **NARROW)
    names = ("family", "seed", "hidden", "layers", "records", "threads")
    return sft_arms.run_arm(arguments.arm, **{name: getattr(arguments, name) for name in names})


def measure(arguments: argparse.Namespace, family: str) -> dict[str, Any]:
    """Run both arms by turns and compare their losses; return the figures of one family."""
    shape = ["--hidden", str(arguments.hidden), "--layers", str(arguments.layers)]
    shape += ["--records", str(arguments.records), "--threads", str(arguments.threads), "--family", family]
    rounds = []
    for number in range(arguments.rounds):
        one: dict[str, Any] = {}
        for arm in ARMS:
            one[arm] = run_child(__file__, ["--arm", arm, "--seed", str(number), *shape])
            shown = f"{one[arm]['tokens_per_second']:.0f} tokens/s "
            shown += f"({one[arm]['tokens_per_cpu_second']:.0f} a CPU second), {one[arm]['peak_bytes'] / 2**20:.0f} MiB"
            print(f"{family}, round {number + 1}, {arm}: {shown}", file=sys.stderr, flush=True)
        one["speed_ratio"] = one["ours"]["tokens_per_second"] / one["seeds"]["tokens_per_second"]
        one["cpu_speed_ratio"] = one["ours"]["tokens_per_cpu_second"] / one["seeds"]["tokens_per_cpu_second"]
        one["memory_ratio"] = one["ours"]["peak_bytes"] / one["seeds"]["peak_bytes"]
        one["copy_bytes_per_second"], one["load"] = copy_bandwidth(), os.getloadavg()[0]
        rounds.append(one)
    return {
        "rounds": rounds,
        "median_speed_ratio": statistics.median(one["speed_ratio"] for one in rounds),
        "worst_speed_ratio": min(one["speed_ratio"] for one in rounds),
        "median_cpu_speed_ratio": statistics.median(one["cpu_speed_ratio"] for one in rounds),
        "memory_ratio": statistics.median(one["memory_ratio"] for one in rounds),
        "losses": run_child(__file__, ["--losses", "--family", family]),
    }


def missed(families: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the bars that were not met, in words."""
    found = []
    for name, figures in families.items():
        median, worst = figures["median_speed_ratio"], figures["worst_speed_ratio"]
        if not median >= MEDIAN_BAR:
            found.append(f"{name}: the median is {median:.2f} times the seeds' tokens/s, bar {MEDIAN_BAR}")
        if not worst >= WORST_BAR:
            found.append(f"{name}: the worst is {worst:.2f} times the seeds' tokens/s, bar {WORST_BAR}")
        if not (memory := figures["memory_ratio"]) <= MEMORY_BAR:
            found.append(f"{name}: the peak is {memory:.2f} of the seeds', bar {MEMORY_BAR}")
        if not (apart := figures["losses"]["largest_difference"]) <= LOSS_BAR:
            found.append(f"{name}: losses on the same batches differ by {apart:.2g}, bar {LOSS_BAR}")
    return found


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs of each family")
    parser.add_argument(
        "--records", type=int, default=128, help="records of a run, one epoch of them; a multiple of 16"
    )
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of each run: where others work too, two wait")
    parser.add_argument("--family", choices=FAMILIES, help="this one only")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--losses", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measure, report, and return the exit code."""
    arguments = parse()
    if arguments.arm or arguments.losses:
        with tempfile.TemporaryDirectory(prefix="medchat-throughput-") as folder:
            os.chdir(folder)
            figures = child(arguments)
        print(json.dumps(figures))
        return 0
    families = {
        name: measure(arguments, name) for name in ([arguments.family] if arguments.family else FAMILIES)
    }
    bars = {"median": MEDIAN_BAR, "worst": WORST_BAR, "memory": MEMORY_BAR, "losses": LOSS_BAR}
    return report("sft_throughput", bars, {"families": families}, missed(families), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
