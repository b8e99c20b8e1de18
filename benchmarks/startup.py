"""How long MedChat takes to start, against the start of Python itself in the same run.

    python benchmarks/startup.py --json FILE [--runs 20] [--asks 7]

Bars, exit code 1 where one is missed:
- `medchat --help` and `medchat plugins list`: the median of `--runs` runs is at most 4 times that of
  `python -c pass`, and at most 120 ms;
- neither imports torch, transformers, rich or prompt_toolkit;
- `medchat chat` on a terminal shows its first prompt within 400 ms (median of 5), the model loading behind it;
- `medchat ask` on a miniature of ChatGLM and one of LLaMA, in int4 weights that were kept, prints the first text within
  1.5 s of its start (median of `--asks` runs), and imports neither torch nor transformers. Beside it the same answer by
  way of torch, as where nothing else can tell what to compute in.

Pages are timed by turns, and the two ways of `ask`, so that whatever else the machine does slows all of them. The bars
in milliseconds mean an idle machine; the ratio holds on a busy one too.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medchat_chatglm.backbone import ChatGLMBackbone
from medchat_llama.backbone import LlamaBackbone
from reporting import parser_of, report

from medchat.api import Backbone

ROOT = Path(__file__).resolve().parent.parent
RATIO_BAR = 4.0
PAGE_BAR_MS = 120.0
PROMPT_BAR_MS = 400.0
PROMPT_RUNS = 5
ASK_BAR_MS = 1500.0
#: What an answer from kept weights must not import.
TORCH = ("torch", "transformers")
#: What the pages must not import.
HEAVY = ("torch", "transformers", "rich", "prompt_toolkit")
PAGES: Mapping[str, tuple[str, ...]] = {
    "medchat --help": ("--help",),
    "medchat plugins list": ("plugins", "list"),
}
PROMPT = "›".encode()

#: Runs one page in a process of its own and names the modules it must not have imported.
IMPORTS = """
import sys
from medchat.__main__ import main
main()
sys.stderr.write(" ".join(name for name in {heavy} if name in sys.modules))
"""


#: Runs the program as if only torch could tell whether the processor has bfloat16.
WITH_TORCH = """
from medchat.__main__ import main
from medchat.inference import quick_start
quick_start.has_bfloat16 = lambda: None
main()
"""
FAMILIES: Mapping[str, type[Backbone]] = {"chatglm": ChatGLMBackbone, "llama": LlamaBackbone}
QUESTION = "头痛怎么办？"
CORPUS = ("头痛怎么办？先休息，喝点水。", "发烧了怎么办？多喝水，量体温，必要时就医。") * 20


def program() -> list[str]:
    """Return the start of MedChat's command line: its script beside this interpreter, or the module."""
    script = Path(sys.executable).with_name("medchat")
    return [sys.executable, str(script)] if script.exists() else [sys.executable, "-m", "medchat"]


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which the source tree is found and nothing of the user's is read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDCHAT_")}
    plugins = sorted(str(folder) for folder in (ROOT / "plugins").iterdir() if folder.is_dir())
    path = os.pathsep.join([str(ROOT), *plugins])
    return {
        **kept,
        "PYTHONPATH": path,
        "MEDCHAT_HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }


def milliseconds(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Run `command` to its end and return how long it took."""
    start = time.perf_counter()
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def time_pages(runs: int, variables: Mapping[str, str]) -> dict[str, list[float]]:
    """Time bare Python and each page by turns; return the milliseconds of each run."""
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands |= {name: [*program(), *arguments] for name, arguments in PAGES.items()}
    for command in commands.values():  # compiled files and the disk cache are made in this round
        milliseconds(command, variables)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(milliseconds(command, variables))
    return times


def heavy_imports(
    arguments: Sequence[str], variables: Mapping[str, str], heavy: Sequence[str] = HEAVY
) -> list[str]:
    """Return which of `heavy` a command imports."""
    command = [sys.executable, "-c", IMPORTS.format(heavy=tuple(heavy)), *arguments]
    done = subprocess.run(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    )
    return [name for name in done.stderr.split("\n")[-1].split() if name in heavy]


def time_asks(folder: Path, runs: int, variables: Mapping[str, str]) -> dict[str, Any]:
    """Ask a miniature of each family with and without torch, by turns; return the milliseconds to the first text."""
    found: dict[str, Any] = {}
    for family, backbone in FAMILIES.items():
        model = folder / family
        backbone().tiny(model, corpus=CORPUS, seed=1)
        asked = (
            f"ask --model {model} --quantize int4 --device cpu --seed 1 --no-save --max-new-tokens 64".split()
        )
        ways = {
            "without torch": [*program(), *asked, QUESTION],
            "with torch": [sys.executable, "-c", WITH_TORCH, *asked, QUESTION],
        }
        milliseconds_to_output(ways["with torch"], variables)  # quantises, and keeps it
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, command in ways.items():
                taken[way].append(milliseconds_to_output(command, variables))
        medians = {way: round(statistics.median(values), 1) for way, values in taken.items()}
        imports = heavy_imports([*asked, QUESTION], variables, TORCH)
        found[family] = {
            "median_ms": medians,
            "minimum_ms": round(min(taken["without torch"]), 1),
            "imports": imports,
        }
    return found


def milliseconds_to_output(command: Sequence[str], variables: Mapping[str, str]) -> float:
    """Run `command` to its end and return when its first output came."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise RuntimeError(f"no answer: {command}")
        taken = (time.perf_counter() - start) * 1000
        process.stdout.read()
    return taken


def milliseconds_to_prompt(model: Path, variables: Mapping[str, str], limit: float = 30.0) -> float:
    """Start `medchat chat` on a terminal of its own and return the time until the prompt is drawn."""
    command = [*program(), "chat", "--backbone", "chatglm", "--model", str(model), "--no-save"]
    start = time.perf_counter()
    process, master = pty.fork()
    if process == 0:
        os.execve(command[0], command, dict(variables))
    try:
        seen = b""
        while PROMPT not in seen:
            ready, _, _ = select.select([master], [], [], limit)
            if not ready:
                raise TimeoutError(f"no prompt within {limit} s; shown: {seen[-200:]!r}")
            seen += _read(master, seen)
        return (time.perf_counter() - start) * 1000
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(master)


def _read(master: int, seen: bytes) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:
        raise RuntimeError(f"the chat ended before its prompt: {seen[-200:]!r}") from None


def measure(runs: int, asks: int) -> dict[str, Any]:
    """Measure everything and return the figures."""
    with tempfile.TemporaryDirectory(prefix="medchat-startup-") as folder:
        variables = environment(Path(folder) / "home")
        model = Path(folder) / "model"
        model.mkdir()
        config = {"model_type": "chatglm", "vocab_size": 130528, "inner_hidden_size": 16384}
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        times = time_pages(runs, variables)
        medians = {name: statistics.median(values) for name, values in times.items()}
        bare = medians["python -c pass"]
        return {
            "median_ms": {name: round(value, 1) for name, value in medians.items()},
            "minimum_ms": {name: round(min(values), 1) for name, values in times.items()},
            "ratio": {name: round(medians[name] / bare, 2) for name in PAGES},
            "heavy_imports": {name: heavy_imports(page, variables) for name, page in PAGES.items()},
            "first_prompt_ms": round(
                statistics.median(milliseconds_to_prompt(model, variables) for _ in range(PROMPT_RUNS)), 1
            ),
            "ask": time_asks(Path(folder), asks, variables) if asks else {},
        }


def missed(figures: Mapping[str, Any]) -> list[str]:
    """Return the bars that were not met, in words."""
    found = []
    for name in PAGES:
        if figures["ratio"][name] > RATIO_BAR:
            found.append(f"{name} takes {figures['ratio'][name]} times python -c pass, bar {RATIO_BAR}")
        if figures["median_ms"][name] > PAGE_BAR_MS:
            found.append(f"{name} takes {figures['median_ms'][name]} ms, bar {PAGE_BAR_MS}")
        if figures["heavy_imports"][name]:
            found.append(f"{name} imports {', '.join(figures['heavy_imports'][name])}")
    if figures["first_prompt_ms"] > PROMPT_BAR_MS:
        found.append(f"the first prompt takes {figures['first_prompt_ms']} ms, bar {PROMPT_BAR_MS}")
    for family, asked in figures["ask"].items():
        if asked["median_ms"]["without torch"] > ASK_BAR_MS:
            found.append(
                f"{family}: {asked['median_ms']['without torch']} ms to the first text, bar {ASK_BAR_MS}"
            )
        if asked["imports"]:
            found.append(f"{family}: ask imports {', '.join(asked['imports'])}")
    return found


def main() -> int:
    """Measure, report, and return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each page")
    parser.add_argument("--asks", type=int, default=7, help="runs of each way to answer; 0 for none")
    arguments = parser.parse_args()
    figures = measure(arguments.runs, arguments.asks)
    bars = {
        "ratio": RATIO_BAR,
        "page_ms": PAGE_BAR_MS,
        "first_prompt_ms": PROMPT_BAR_MS,
        "ask_ms": ASK_BAR_MS,
    }
    failures = missed(figures)
    return report(
        "startup", bars, {"runs": arguments.runs, "asks": arguments.asks, **figures}, failures, arguments.json
    )


if __name__ == "__main__":
    sys.exit(main())
