"""A configuration file in which anything may stand is read, or refused as wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import EXAMPLES, fuzz, toml_files

from medchat.errors import UsageError
from medchat.settings import KEYS, Settings

NAMES = [*KEYS, "unknown", "api_key"]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("file", ["user_file", "project_file"])
def test_any_configuration_is_read_or_refused(tmp_path: Path, examples: int, file: str) -> None:
    path = tmp_path / "config.toml"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        settings = Settings.load(environment={}, **{"user_file": tmp_path / "none", file: path})
        settings.generation()
        settings.folder_notice()

    fuzz(read, toml_files(NAMES), examples, UsageError)
