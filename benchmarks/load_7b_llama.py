"""Loads a LLaMA-7B (random, decapoda's 33 float16 shards) with an adapter on the CPU and lets `medchat ask` answer.

    python benchmarks/load_7b_llama.py --json FILE [--dir DIR] [--keep] [--quantize int8|int4] [--layers N]

Bars, exit code 1 where one is missed:
- peak resident memory while loading base and adapter, less that just before, is at most 1.10 times the
  loaded weights (mapped pages count, and so does what peft's import takes);
- `medchat ask` prints its first words before its last, and ends with exit code 0.

Needs about 14 GB of disk and 16 GB of free memory (less with --layers). Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from loading_figures import ask, finish, measure_loading, run_child, source_folders
from reporting import parser_of


def measure(folder: Path, dtype: str, quantize: str) -> dict[str, Any]:
    """Load the checkpoint and its adapter in this process and return what it cost."""
    from medchat_llama.loading import LLAMA

    from medchat.api import LoadOptions

    adapters = (folder / "adapter",)
    options = LoadOptions(folder / "base", adapters=adapters, device="cpu", dtype=dtype, quantize=quantize)
    return measure_loading(lambda: LLAMA.load(options).model)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--dir", type=Path, help="where the checkpoint goes (default: a temporary folder)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the checkpoint there; reuse it if it exists"
    )
    parser.add_argument(
        "--quantize", choices=("none", "int8", "int4"), default="none", help="as medchat's flag"
    )
    parser.add_argument("--layers", type=int, default=32, help="fewer for a smaller trial")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=16, help="length of the answer")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Write, load, ask, report. Returns the exit code."""
    arguments = parse()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.dtype, arguments.quantize)))
        return 0
    sys.path[:0] = map(str, source_folders())
    from llama_7b_checkpoint import Shape, write_adapter, write_checkpoint

    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="medchat-llama-7b-"))
    base, adapter = folder / "base", folder / "adapter"
    try:
        start = time.perf_counter()
        if not (arguments.keep and (adapter / "adapter_config.json").exists()):
            write_checkpoint(base, Shape(layers=arguments.layers))
            write_adapter(adapter, Shape(layers=arguments.layers))
        written = time.perf_counter() - start
        options = ["--dtype", arguments.dtype, "--quantize", arguments.quantize]
        loading = run_child(__file__, ["--measure", str(folder), *options])
        flags = ["--backbone", "llama", "--model", str(base), "--adapter", str(adapter), *options]
        with tempfile.TemporaryDirectory() as home:
            answer = ask(flags, arguments.tokens, Path(home))
        stored = sum(file.stat().st_size for file in base.glob("*.bin"))
        shards = len(list(base.glob("*.bin")))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    checkpoint = {
        "shards": shards,
        "file_bytes": stored,
        "layers": arguments.layers,
        "seconds_to_write": written,
    }
    figures = {"checkpoint": checkpoint, "loading": loading, "ask": answer}
    return finish("load_7b_llama", figures, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
