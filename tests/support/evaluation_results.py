"""Results of `medchat eval` as tests read them, held to what every number has to state."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

#: The metrics that guessing alone would raise above 0, or that are 0 by chance.
BY_CHANCE = re.compile("accuracy|kappa")


def results_of(folder: Path) -> dict[str, Any]:
    """Return results.json of `folder`, once each number in it and in report.md has its n, interval and chance."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    page = (folder / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert not re.search(r"[\[{]'|\| (?:None|True|False) \|", page), (
        "a table shows a value as Python writes it"
    )
    for name, metric in [
        *found["metrics"].items(),
        *(one for by in found["groups"].values() for one in by.items()),
    ]:
        row = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", page, re.MULTILINE)
        assert row and metric["n"] > 0, name
        _, interval, _, count = (cell.strip() for cell in row[1].split("|"))
        assert count == str(metric["n"]), name
        if metric["n"] > 1:
            low, high = metric["interval"]
            assert low <= high and re.fullmatch(r"-?[\d.]+–-?[\d.]+", interval), name
        if name in found["metrics"] and BY_CHANCE.search(name):
            assert "chance" in metric, name
    for one in found["data"]:
        assert one["file"] and len(one["sha256"]) == 64
    return found
