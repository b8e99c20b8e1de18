"""Prompts and answer clean-up against what the original code wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from locations import DATA, SHARED
from medchat_chatglm.cleanup import StreamingResponse, process_response
from medchat_chatglm.prompts import CHATGLM_ROUNDS

from medchat.api import Text, Turn

pytestmark = pytest.mark.golden

FOLDERS = (Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens")), DATA / "goldens")
GOLDEN = next(
    json.loads((folder / "chatglm/text/text.json").read_text(encoding="utf-8"))
    for folder in FOLDERS
    if (folder / "chatglm/text/text.json").is_file()
)
GENERATIONS = {"v0": False, "v11": True}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("case", GOLDEN["chat_prompts"], ids=lambda case: f"{len(case['history'])}-turns")
def test_rounds_prompt_equals_the_original(case: dict[str, Any], generation: str) -> None:
    turns = [Turn(question, answer) for question, answer in case["history"]]
    segments = CHATGLM_ROUNDS.render(turns, case["query"])
    assert all(isinstance(segment, Text) for segment in segments)
    written = "".join(segment.text for segment in segments if isinstance(segment, Text))
    assert written == case[f"prompt_{generation}"]


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("case", GOLDEN["postprocess"], ids=lambda case: ascii(case["raw"])[:40])
def test_clean_answer_equals_the_original_at_once_and_letter_by_letter(
    case: dict[str, Any], generation: str
) -> None:
    full_width = GENERATIONS[generation]
    assert process_response(case["raw"], full_width=full_width) == case[generation]
    stream = StreamingResponse(full_width=full_width)
    pieces = [stream.feed(character) for character in case["raw"]]
    assert "".join(pieces) + stream.finish() == case[generation]
