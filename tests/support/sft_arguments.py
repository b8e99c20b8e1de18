"""The arguments that fine-tune a family's tiny model on a few records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from method_runs import EXAMPLES, base


def data(folder: Path, pairs: Sequence[tuple[str, str]] = ()) -> str:
    path = folder / "data.json"
    given = pairs or [(one.question, one.answer) for one in EXAMPLES]
    rows = [{"instruction": question, "output": answer} for question, answer in given]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def sft(
    folder: Path, *more: str, family: str = "chatglm", pairs: Sequence[tuple[str, str]] = (), **shape: Any
) -> tuple[str, ...]:
    """Return the arguments that fine-tune a family's tiny model on a few records."""
    model = str(base(family, folder, **shape))
    return ("sft", "--model", model, "--data", data(folder, pairs), "--device", "cpu", *more)
