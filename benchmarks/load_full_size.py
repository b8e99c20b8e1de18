"""Loads a full-size ChatGLM-6B (random, real layout) on the CPU and lets `medchat ask` answer from it.

    python benchmarks/load_full_size.py --json FILE [--dir DIR] [--keep] [--quantized 8|4]
        [--quantize int8|int4 [--again]]

Bars, exit code 1 where one is missed:
- peak resident memory while loading, less that just before, is at most 1.10 times the loaded weights
  (mapped pages count);
- `medchat ask` prints its first words before its last, and ends with exit code 0;
- with `--again`, where quantised weights are kept: the start after the first one has them ready within 5 seconds.

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

#: Seconds within which kept weights are ready, and what may be kept.
READY, MOST_KEPT = 5.0, 64 << 30


def measure(folder: Path, dtype: str, quantize: str, home: Path | None) -> dict[str, Any]:
    """Load the checkpoint in this process and return what it cost. `home` is where quantised weights are kept."""
    from medchat_chatglm.loading import load_model

    from medchat.api import LoadOptions, QuantizedCache

    cache = QuantizedCache(home / "cache" / "quantized", MOST_KEPT) if home else None
    options = LoadOptions(folder, device="cpu", dtype=dtype, quantize=quantize, quantized_cache=cache)
    return measure_loading(lambda: load_model(options).model)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--dir", type=Path, help="where the checkpoint goes (default: a temporary folder)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the checkpoint there; reuse it if it exists"
    )
    parser.add_argument("--quantized", type=int, choices=(0, 8, 4), default=0, help="bits of the stored form")
    parser.add_argument(
        "--quantize", choices=("none", "int8", "int4"), default="none", help="as medchat's flag"
    )
    parser.add_argument("--again", action="store_true", help="keep quantised weights and start a second time")
    parser.add_argument("--rows", type=int, choices=(130528, 150528), default=150528)
    parser.add_argument("--layers", type=int, default=28, help="fewer for a smaller trial")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=16, help="length of the answer")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Write, load, ask, report. Returns the exit code."""
    arguments = parse()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.dtype, arguments.quantize, arguments.home)))
        return 0
    sys.path[:0] = map(str, source_folders())
    from full_size_checkpoint import Shape, write_checkpoint

    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="medchat-full-size-"))
    try:
        start = time.perf_counter()
        shape = Shape(rows=arguments.rows, layers=arguments.layers, bits=arguments.quantized)
        if not (arguments.keep and (folder / "config.json").exists()):
            write_checkpoint(folder, shape)
        written = time.perf_counter() - start
        options = ["--dtype", arguments.dtype, "--quantize", arguments.quantize]
        with tempfile.TemporaryDirectory(dir=folder.parent) as home:
            kept = ["--home", home] if arguments.again else []
            loading = run_child(__file__, ["--measure", str(folder), *options, *kept])
            again = run_child(__file__, ["--measure", str(folder), *options, *kept]) if kept else None
            answer = ask(
                ["--backbone", "chatglm", "--model", str(folder), *options], arguments.tokens, Path(home)
            )
        stored = sum(file.stat().st_size for file in folder.glob("*.bin"))
        shards = len(list(folder.glob("*.bin")))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    checkpoint = {
        "shards": shards,
        "file_bytes": stored,
        "layers": arguments.layers,
        "rows": arguments.rows,
        "stored_bits": arguments.quantized,
        "seconds_to_write": written,
    }
    figures = {"checkpoint": checkpoint, "loading": loading, "second_start": again, "ask": answer}
    slow = again is not None and again["load_seconds"] > READY
    late = (
        [f"kept weights were ready after {again['load_seconds']:.1f} s, bar {READY}"]
        if again and slow
        else []
    )
    return finish("load_full_size", figures, arguments.json, late)


if __name__ == "__main__":
    sys.exit(main())
