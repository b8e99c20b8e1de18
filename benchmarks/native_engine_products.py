"""What the linears of a decoder layer cost in the native engine and in torch, by width and number of tokens.

    python benchmarks/native_engine_products.py --json FILE [--rounds 7] [--threads 1]

Bars, exit code 1 where one is missed: for one token the native engine is at least 1.1 times as fast as torch's
int8 kernel and 3 times as fast as torch on int4; for 64 tokens 1.5 times on both. Random weights of the real
shapes in bfloat16 models, more of them than a cache holds; the engines take turns, and what counts is the ratio
of the medians of processor time (of elapsed time where there are several threads). 512 tokens are reported
without a bar: there torch has AMX in bfloat16 where the CPU has it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from reporting import parser_of, report

from medchat.inference.engine import NativeLinear, engine_of
from medchat.inference.quantization import QuantizedLinear

#: (inputs, outputs) of the linears of one layer.
SHAPES = {
    "LLaMA-7B": [(4096, 4096)] * 4 + [(4096, 11008)] * 2 + [(11008, 4096)],
    "ChatGLM-6B": [(4096, 12288), (4096, 4096), (4096, 16384), (16384, 4096)],
}
TOKENS = (1, 16, 64, 512)
#: Least speed over torch, by bits and tokens.
BARS = {8: {1: 1.1, 64: 1.5}, 4: {1: 3.0, 64: 1.5}}
#: Layers of each kind, used by turns.
LAYERS = 3
#: From so many tokens on one layer is enough: they are bound by arithmetic, and take long.
FEW = 64

Layer = list[torch.nn.Module]


def layers_of(shapes: Sequence[tuple[int, int]], bits: int) -> dict[str, list[Layer]]:
    """Return random layers without biases by the engine that computes them, the same weights in both."""
    made: dict[str, list[Layer]] = {"torch": [], "native": []}
    for _ in range(LAYERS):
        layer = [QuantizedLinear(inputs, outputs, bits, bias=False) for inputs, outputs in shapes]
        for linear in layer:
            linear.weight.random_(-128, 128)
            linear.weight_scale.fill_(0.02 / 2**bits)
        made["torch"].append([linear.to(torch.bfloat16) for linear in layer])
        made["native"].append([NativeLinear.of_quantized(linear) for linear in layer])
    return made


def seconds(layers: Sequence[Layer], tokens: int, clock: Any) -> float:
    """Return the time that all linears of a layer take for `tokens` tokens, by `clock`, the mean of the layers."""
    inputs = {
        linear.in_features: torch.randn(tokens, int(linear.in_features), dtype=torch.bfloat16)
        for linear in layers[0]
    }
    with torch.inference_mode():
        start = clock()
        for layer in layers:
            for linear in layer:
                linear(inputs[linear.in_features])
        return float(clock() - start) / len(layers)


def compare(shapes: Sequence[tuple[int, int]], bits: int, rounds: int, clock: Any) -> dict[str, Any]:
    """Return the figures of both engines for every number of tokens."""
    layers, figures = layers_of(shapes, bits), {}
    stored = sum(linear.weight.numel() for linear in layers["native"][0])
    for tokens in TOKENS:
        taken: dict[str, list[float]] = {engine: [] for engine in layers}
        for _ in range(rounds):
            for engine, some in layers.items():
                taken[engine].append(seconds(some if tokens < FEW else some[:1], tokens, clock))
        medians = {engine: statistics.median(values) for engine, values in taken.items()}
        figures[f"{tokens} tokens"] = {
            **{f"{engine}_ms": round(value * 1000, 2) for engine, value in medians.items()},
            "speed_over_torch": round(medians["torch"] / medians["native"], 2),
            "native_gigabytes_a_second": round(stored / medians["native"] / 1e9, 1),
        }
    return figures


def main() -> int:
    """Compare the engines on every shape and report."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    figures: dict[str, Any] = {"threads": given.threads}
    failures = []
    for name, shapes in SHAPES.items():
        for bits, bars in BARS.items():
            found = compare(shapes, bits, given.rounds, clock)
            figures[f"{name} int{bits}"] = found
            for tokens, bar in bars.items():
                ratio = found[f"{tokens} tokens"]["speed_over_torch"]
                if ratio < bar:
                    failures.append(f"{name} int{bits}, {tokens} tokens: {ratio} times torch's speed")
    tiny = NativeLinear.of_quantized(QuantizedLinear(32, 16, 8))
    figures["engine"] = engine_of(tiny)
    bars_named = {f"int{bits}": bars for bits, bars in BARS.items()}
    return report("native_engine_products", {"speed_over_torch": bars_named}, figures, failures, given.json)


if __name__ == "__main__":
    sys.exit(main())
