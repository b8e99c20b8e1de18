"""A question, its answer, and messages that say them, for tests of data files."""

from __future__ import annotations

from typing import Any

Q, A = "头痛怎么办？", "多休息。"


def human(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def model(text: str, role: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}
