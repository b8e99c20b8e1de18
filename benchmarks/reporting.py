"""What every benchmark here has in common: `--json FILE`, one report, exit code 1 where a bar was missed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--json` and shows the first line of `description`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser


def report(
    name: str,
    bars: Mapping[str, Any],
    figures: Mapping[str, Any],
    failures: Sequence[str],
    file: Path | None,
) -> int:
    """Print the report, and write it where asked; return the exit code: 1 where a bar was missed."""
    whole = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "load": [round(value, 2) for value in os.getloadavg()],
        },
        "bar": bars,
        **figures,
        "failures": failures,
    }
    text = json.dumps(whole, ensure_ascii=False, indent=2)
    print(text)
    if file:
        file.write_text(text + "\n", encoding="utf-8")
    return 1 if failures else 0
