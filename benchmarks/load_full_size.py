"""Loads a full-size ChatGLM-6B (random, real layout) on the CPU and lets `medchat ask` answer from it.

    python benchmarks/load_full_size.py --json FILE [--dir DIR] [--keep] [--quantized 8|4] [--quantize int8|int4]

Bars, exit code 1 where one is missed:
- peak resident memory while loading, less that just before, is at most 1.10 times the loaded weights
  (mapped pages count);
- `medchat ask` prints its first words before its last, and ends with exit code 0.

Needs about 14 GB of disk and 16 GB of free memory (less with --layers). Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BAR = 1.10
QUESTION = "头痛怎么办？"


def measure_loading(folder: Path, dtype: str, quantize: str) -> dict[str, Any]:
    """Load the checkpoint in this process and return bytes and seconds."""
    import torch
    from medchat_chatglm.loading import load_model

    from medchat.api import LoadOptions

    options = LoadOptions(folder, device="cpu", dtype=dtype, quantize=quantize)
    before = memory_field("VmRSS")
    # Starts the kernel's record of the highest resident size anew, which no sampling can miss.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start = time.perf_counter()
    loaded = load_model(options)
    seconds = time.perf_counter() - start
    weights = sum(parameter.nbytes for parameter in loaded.model.parameters())
    peak = memory_field("VmHWM")
    return {
        "weight_bytes": weights,
        "resident_before": before,
        "resident_peak": peak,
        "resident_after": memory_field("VmRSS"),
        "peak_over_weights": (peak - before) / weights,
        "load_seconds": seconds,
        "copy_bytes_per_second": copy_bandwidth(),
        "torch": torch.__version__,
        "dtype": str(loaded.dtype).removeprefix("torch."),
    }


def memory_field(name: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split(f"{name}:")[1].split()[0])


def copy_bandwidth() -> float:
    """Return the bytes read and written a second by one large copy: what this machine gives right now."""
    import torch

    source = torch.ones(2**26)
    target = torch.empty_like(source)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times)


def run_child(arguments: list[str]) -> dict[str, Any]:
    """Run this file in a fresh process, where nothing was loaded before, and return its JSON."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def environment() -> dict[str, str]:
    """Return the environment of a child that finds MedChat in this tree, installed or not."""
    paths = [str(ROOT), str(ROOT / "plugins" / "chatglm"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def ask(folder: Path, dtype: str, quantize: str, tokens: int) -> dict[str, Any]:
    """Ask one question through the program and return when each piece of the answer came."""
    command = [sys.executable, "-m", "medchat", "ask", QUESTION, "--events", "--no-save", "--seed", "1"]
    # Random weights would repeat one token when decoded greedily, perhaps one without text.
    command += ["--temperature", "1", "--top-p", "1"]
    command += ["--backbone", "chatglm", "--model", str(folder), "--device", "cpu", "--dtype", dtype]
    command += ["--quantize", quantize, "--max-new-tokens", str(tokens)]
    with tempfile.TemporaryDirectory() as home:
        start = time.perf_counter()
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment() | {"MEDCHAT_HOME": home}
        )
        assert child.stdout is not None
        events = [(time.perf_counter() - start, json.loads(line)) for line in child.stdout]
        code = child.wait()
    pieces = [when for when, event in events if event.get("event") == "delta"]
    end: dict[str, Any] = next((event for _, event in events if event.get("event") == "end"), {})
    between = pieces[-1] - pieces[0] if len(pieces) > 1 else 0.0
    return {
        "exit_code": code,
        "pieces": len(pieces),
        "completion_tokens": end.get("completion_tokens"),
        "finish": end.get("finish"),
        "seconds_to_first_piece": pieces[0] if pieces else None,
        "seconds_between_first_and_last": between,
        "seconds_of_answer": end.get("seconds"),
        "seconds_in_all": time.perf_counter() - start,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--dir", type=Path, help="where the checkpoint goes (default: a temporary folder)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the checkpoint there; reuse it if it exists"
    )
    parser.add_argument("--quantized", type=int, choices=(0, 8, 4), default=0, help="bits of the stored form")
    parser.add_argument(
        "--quantize", choices=("none", "int8", "int4"), default="none", help="as medchat's flag"
    )
    parser.add_argument("--rows", type=int, choices=(130528, 150528), default=150528)
    parser.add_argument("--layers", type=int, default=28, help="fewer for a smaller trial")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=16, help="length of the answer")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Write, load, ask, report. Returns the exit code."""
    arguments = parse()
    if arguments.measure:
        print(json.dumps(measure_loading(arguments.measure, arguments.dtype, arguments.quantize)))
        return 0
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins" / "chatglm"), str(Path(__file__).resolve().parent)]
    from full_size_checkpoint import Shape, write_checkpoint

    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="medchat-full-size-"))
    try:
        start = time.perf_counter()
        shape = Shape(rows=arguments.rows, layers=arguments.layers, bits=arguments.quantized)
        if not (arguments.keep and (folder / "config.json").exists()):
            write_checkpoint(folder, shape)
        written = time.perf_counter() - start
        options = ["--dtype", arguments.dtype, "--quantize", arguments.quantize]
        loading = run_child(["--measure", str(folder), *options])
        answer = ask(folder, arguments.dtype, arguments.quantize, arguments.tokens)
        stored = sum(file.stat().st_size for file in folder.glob("*.bin"))
        shards = len(list(folder.glob("*.bin")))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    failures = missed(loading, answer)
    report = {
        "benchmark": "load_full_size",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/load_full_size.py", *sys.argv[1:]]),
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "python": platform.python_version()},
        "checkpoint": {"shards": shards, "file_bytes": stored, "layers": arguments.layers, "rows": arguments.rows,
                       "stored_bits": arguments.quantized, "seconds_to_write": written},
        "bar": {"peak_over_weights": BAR},
        "loading": loading,
        "ask": answer,
        "failures": failures,
    }  # fmt: skip
    text = json.dumps(report, ensure_ascii=False, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 1 if failures else 0


def missed(loading: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return the bars that were not met, in words."""
    found = []
    if loading["peak_over_weights"] > BAR:
        found.append(f"peak memory is {loading['peak_over_weights']:.3f} times the weights, bar {BAR}")
    if answer["exit_code"] != 0 or not answer["completion_tokens"]:
        found.append(f"medchat ask ended with {answer['exit_code']} and {answer['completion_tokens']} tokens")
    elif answer["completion_tokens"] > 1 and answer["seconds_between_first_and_last"] <= 0:
        found.append("medchat ask did not stream: no piece came before the last")
    return found


if __name__ == "__main__":
    sys.exit(main())
