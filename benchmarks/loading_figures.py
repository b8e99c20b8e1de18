"""What loading a full-size checkpoint costs, and whether `medchat ask` streams from it: shared measurements.

Linux only: reads /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reporting import report

ROOT = Path(__file__).resolve().parent.parent
BAR = 1.10
QUESTION = "头痛怎么办？"


def measure_loading(load: Callable[[], Any]) -> dict[str, Any]:
    """Call `load`, which returns a model (a torch module), in this process; return bytes and seconds."""
    import torch

    before = memory_field("VmRSS")
    # Starts the kernel's record of the highest resident size again, which no sampling can miss.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start, processor = time.perf_counter(), time.process_time()
    model = load()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    weights = sum(parameter.nbytes for parameter in model.parameters())
    peak = memory_field("VmHWM")
    return {
        "weight_bytes": weights,
        "resident_before": before,
        "resident_peak": peak,
        "resident_after": memory_field("VmRSS"),
        "peak_over_weights": (peak - before) / weights,
        "load_seconds": seconds,
        "load_processor_seconds": processor,
        "copy_bytes_per_second": copy_bandwidth(),
        "torch": torch.__version__,
        "dtype": str(model.dtype).removeprefix("torch."),
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


def run_child(script: str, arguments: list[str]) -> dict[str, Any]:
    """Run a benchmark's script in a fresh process, where nothing was loaded before, and return its JSON."""
    command = [sys.executable, str(Path(script).resolve()), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def environment() -> dict[str, str]:
    """Return the environment of a child: it finds MedChat in this tree, installed or not, and waits as MedChat does."""
    # A name of the program's front, which imports nothing else: torch in a child is loaded without it.
    from medchat.__main__ import PASSIVE_WAITING

    paths = [*map(str, source_folders()), os.environ.get("PYTHONPATH", "")]
    return PASSIVE_WAITING | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def source_folders() -> list[Path]:
    """Return what `sys.path` needs for MedChat and its built-in plugins in this tree."""
    return [ROOT, *sorted((ROOT / "plugins").iterdir())]


def ask(flags: list[str], tokens: int, home: Path) -> dict[str, Any]:
    """Ask one question of the model that `flags` name; return when each piece of the answer came.

    `home` is the program's own folder.
    """
    command = [sys.executable, "-m", "medchat", "ask", QUESTION, "--events", "--no-save", "--seed", "1"]
    # Random weights would repeat one token when decoded greedily, perhaps one without text.
    command += ["--temperature", "1", "--top-p", "1"]
    command += [*flags, "--device", "cpu", "--max-new-tokens", str(tokens)]
    start = time.perf_counter()
    own = environment() | {"MEDCHAT_HOME": str(home)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own)
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


def finish(name: str, figures: dict[str, Any], report_file: Path | None, failures: Sequence[str] = ()) -> int:
    """Print the report, and write it where asked; return the exit code: 1 where a bar was missed.

    `failures` are those of this benchmark alone.
    """
    failures = [*missed(figures["loading"], figures["ask"]), *failures]
    return report(name, {"peak_over_weights": BAR}, figures, failures, report_file)
