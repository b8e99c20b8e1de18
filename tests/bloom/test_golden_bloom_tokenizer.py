"""Bloom's tokenizer against ids recorded from the `tokenizers` library, on the recorded vocabulary.

Folders: `$MEDCHAT_GOLDENS`, else `goldens` under `$MEDCHAT_SHARED` or next to the project. The sentences may
not be copied into the project: skipped where the folder is absent.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from locations import SHARED
from medchat_bloom.tokenizer import BloomTokenizer

from medchat.api import Control, Segment, Text

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("MEDCHAT_GOLDENS", SHARED / "goldens")) / "tokenizers"
VOCABULARY, RECORDED = FOLDER / "bloom-tiny.tokenizer.json", FOLDER / "bloom-tiny.json"
if not RECORDED.is_file():
    pytest.skip(f"no recorded tokenizer at {RECORDED}", allow_module_level=True)


@cache
def recorded() -> dict[str, Any]:
    return dict(json.loads(RECORDED.read_text(encoding="utf-8")))


def cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{case['category']}-{number}")
        for number, case in enumerate(recorded()["cases"])
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BloomTokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    shutil.copy(VOCABULARY, folder / "tokenizer.json")
    return BloomTokenizer.from_folder(folder)


def in_segments(text: str) -> list[Segment]:
    """Return the text with each marker as a control token, which is how the recording library read it."""
    markers = "|".join(map(re.escape, recorded()["meta"]["special_ids"]))
    parts = re.split(f"({markers})", text)
    return [Control(part) if number % 2 else Text(part) for number, part in enumerate(parts) if part]


def test_the_special_ids_are_those_recorded(tokenizer: BloomTokenizer) -> None:
    assert dict(tokenizer.special_ids) == recorded()["meta"]["special_ids"]


@pytest.mark.parametrize("case", cases())
def test_ids_and_texts_are_those_recorded(tokenizer: BloomTokenizer, case: dict[str, Any]) -> None:
    assert tokenizer.build_prompt(in_segments(case["text"])) == case["ids"]
    assert tokenizer.decode(case["ids"]) == case["decoded_skip"]
    stream = tokenizer.stream()
    assert "".join(map(stream.feed, case["ids"])) + stream.finish() == case["decoded_skip"]


@pytest.mark.parametrize("case", cases())
def test_typed_text_gives_no_control_id_and_comes_back_whole(
    tokenizer: BloomTokenizer, case: dict[str, Any]
) -> None:
    ids = tokenizer.encode(case["text"])
    assert set(ids).isdisjoint(tokenizer.special_ids.values())
    assert tokenizer.decode(ids) == case["text"]


@settings(max_examples=150)
@given(data=st.data())
def test_however_text_is_cut_into_segments_its_ids_are_the_same(
    tokenizer: BloomTokenizer, data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from([case["text"] for case in recorded()["cases"]]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    bounds = [0, *cuts, len(text)]
    parts = [Text(text[start:end]) for start, end in pairwise(bounds)]
    assert tokenizer.build_prompt(parts) == tokenizer.encode(text)
