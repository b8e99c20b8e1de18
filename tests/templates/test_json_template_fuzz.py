"""A template file in which anything may stand is read and renders, or is refused as wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import EXAMPLES, fuzz, json_files

from medchat.errors import UsageError
from medchat.templates.json_template import read_template

KEYS = ("description", "note", "prompt_input", "prompt_no_input", "response_split", "stop", "zh", "turns")


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_template_file_is_read_or_refused(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "template.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_template(path).render((), "头痛")

    fuzz(read, json_files(KEYS), examples, UsageError)
