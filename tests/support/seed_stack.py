"""The decoding settings and the answers of the recordings of BenTsao's original stack."""

from __future__ import annotations

from typing import Any

from medchat.api import GenerationConfig


def decoding(case: dict[str, Any], kind: str) -> GenerationConfig:
    """Return the decoding of a recording: `kind` is greedy or beam4; the answer has the recorded length."""
    return GenerationConfig(
        greedy=kind == "greedy",
        num_beams=4 if kind == "beam4" else 1,
        max_new_tokens=len(case[f"{kind}_ids"]),
    )


def recorded_text(case: dict[str, Any], kind: str) -> str:
    """Return the recorded answer, without the half character that a cut by length left at its end.

    The original printed U+FFFD there; MedChat drops the incomplete bytes.
    """
    return str(case[f"{kind}_text"]).rstrip("\ufffd")
