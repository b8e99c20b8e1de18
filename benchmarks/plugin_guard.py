"""What the guard around a plugin's model costs for each token of an answer.

    python benchmarks/plugin_guard.py --json FILE [--runs 21]

Bar, exit code 1 where it is missed (processor time of this process, median over pairs of runs, the model alone and
behind its guard in turn): under 2 microseconds a token, with Chinese text and with English.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from reporting import parser_of, report

TOKENS = 20_000
BAR_MICROSECONDS = 2.0
PIECES = {"Chinese": ("多喝", "水，", "早点休息"), "English": (" drink", " water", ",")}


class Fast:
    """A model that says its pieces in turn and computes nothing."""

    context_length = 1 << 20

    def __init__(self, pieces: tuple[str, ...]) -> None:
        self._pieces = pieces

    def stream(self, segments: Any, config: Any, cancel: Any) -> Iterator[Any]:
        """Yield `TOKENS` deltas and the end."""
        from medchat.api import Delta, Finish

        pieces, count = self._pieces, len(self._pieces)
        for said in range(1, TOKENS + 1):
            yield Delta(pieces[said % count], said, 10)
        yield Delta("", TOKENS, 10, finish=Finish.STOP)

    def __getattr__(self, name: str) -> Any:
        """Have every other method, and do nothing in it."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *given: None


def seconds(model: Any) -> float:
    """Return the processor time of one answer."""
    from medchat.api import GenerationConfig

    config, cancel = GenerationConfig(), threading.Event()
    start = time.process_time()
    for _ in model.stream((), config, cancel):
        pass
    return time.process_time() - start


def microseconds(pieces: tuple[str, ...], runs: int) -> float:
    """Return what the guard adds to each token: the median over `runs` pairs."""
    from medchat.registry.guarded_model import guarded_model
    from medchat.registry.metadata import BACKBONES, PluginEntry

    alone: Any = Fast(pieces)
    behind = guarded_model(alone, PluginEntry(BACKBONES, "fast", "fast", "fast", "1"), "load")
    seconds(alone), seconds(behind)
    return statistics.median((seconds(behind) - seconds(alone)) / TOKENS * 1e6 for _ in range(runs))


def main() -> int:
    """Measure, report, and return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=21, help="pairs of runs for each text")
    arguments = parser.parse_args()
    figures = {name: round(microseconds(pieces, arguments.runs), 3) for name, pieces in PIECES.items()}
    failures = [
        f"{name}: {cost:.2f} microseconds a token"
        for name, cost in figures.items()
        if cost >= BAR_MICROSECONDS
    ]
    found = {"runs": arguments.runs, "tokens": TOKENS, "microseconds_per_token": figures}
    bars = {"microseconds_per_token": BAR_MICROSECONDS}
    return report("plugin_guard", bars, found, failures, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
