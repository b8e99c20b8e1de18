"""Which folders MedChat uses, and what moves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medchat import paths


def test_medchat_home_moves_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCHAT_HOME", str(tmp_path / "家"))
    found = [
        paths.config_file(),
        paths.sessions_file(),
        paths.models_dir(),
        paths.cache_dir(),
    ]
    assert all(place.is_relative_to(tmp_path / "家") for place in found)
    assert len(set(found)) == len(found)
    assert not (tmp_path / "家").exists()


def test_without_medchat_home_the_xdg_folders_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDCHAT_HOME")
    for kind in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    assert paths.config_file() == tmp_path / "CONFIG" / "medchat" / "config.toml"
    assert paths.data_dir() == tmp_path / "DATA" / "medchat"
    assert paths.cache_dir() == tmp_path / "CACHE" / "medchat"
