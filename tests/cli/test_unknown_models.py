"""Whose a model is where `--backbone` is left out: several plugins know it, or none does and one is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Call
from plugin_packages import write_distribution
from plugin_sites import BROKEN_MODULES, add_backbone

pytest_plugins = ("plugin_sites", "cli_program")

#: Two of them are recognised by the same file.
SHARED = """
from optional_backbone import *
from optional_backbone import Optional
medchat_api_version = 1
class Twin(Optional):
    name = "NAME"
@hookimpl
def medchat_backbones():
    return [Twin()]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that no built-in backbone knows."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "optional").touch()
    return path


def commands(folder: Path) -> list[tuple[str, ...]]:
    return [("ask", "头痛", "--no-save", "--model", str(folder)), ("models", "show", str(folder))]


@pytest.mark.parametrize("fault", ["import error", "wrong version", "misspelt hook"])
@pytest.mark.parametrize("config", ["", "{}", '{"model_type": "newest"}'], ids=["none", "untyped", "typed"])
def test_a_plugin_that_could_not_be_asked_is_named(
    call: Call, site: Path, folder: Path, fault: str, config: str
) -> None:
    add_backbone(site, "newest", BROKEN_MODULES[fault])
    add_backbone(site, "sound")
    if config:
        (folder / "config.json").write_text(config)
    for words in commands(folder):
        done = call(*words)
        what, remedy = done.failure()
        assert done.code == 3
        assert "medchat-newest" in what and "medchat-sound" not in what
        assert "medchat plugins list --check" in remedy
        assert "newest" not in remedy


def test_strict_shows_the_traceback_of_a_plugin_that_was_not_named(
    call: Call, site: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_backbone(site, "newest", BROKEN_MODULES["import error"])
    assert all("Traceback" not in call(*words).err for words in commands(folder))
    monkeypatch.setenv("MEDCHAT_STRICT", "1")
    for words in commands(folder):
        err = call(*words).err
        assert "Traceback" in err and "newest_module.py" in err and "no_such_module_at_all" in err


def test_strict_shows_no_traceback_of_what_the_user_mistyped(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCHAT_STRICT", "1")
    assert call("ask", "头痛", "--model", "/nowhere/model").failure()


def test_a_model_that_several_know_goes_to_the_first_by_name_and_that_is_said(
    call: Call, site: Path, folder: Path
) -> None:
    for name in ("second", "first", "third"):
        write_distribution(
            site, f"medchat-{name}", {"medchat": {name: f"{name}_module"}},
            {f"{name}_module": SHARED.replace("NAME", name)},
        )  # fmt: skip
    for words in commands(folder):
        done = call(*words)
        assert done.code == 0, done.err
        (line,) = [line for line in done.err.splitlines() if "--backbone" in line]
        assert "first、second、third" in line and "现在用 first" in line
        named = call(*words, "--backbone", "third")
        assert named.code == 0 and "first" not in named.err
