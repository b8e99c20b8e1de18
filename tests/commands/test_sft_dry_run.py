"""`medchat sft --dry-run` tells all that a run would show, refuses what it would refuse, and needs no output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_program import Call, Outcome
from scripted_recipe import Pupil

pytest_plugins = ("cli_program",)

Sft = Callable[..., Outcome]


@pytest.fixture
def pupil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pupil]:
    made = Pupil(tmp_path / "pupil")
    monkeypatch.syspath_prepend(made.site)
    yield made


@pytest.fixture
def sft(pupil: Pupil, call: Call) -> Sft:
    return lambda *more: call(*pupil.flags, *more)


def test_an_occupied_output_is_refused_as_by_the_run(pupil: Pupil, sft: Sft) -> None:
    pupil.output.mkdir()
    (pupil.output / "mine").write_text("mine")
    dry, run = sft("--dry-run"), sft()
    assert (dry.code, dry.failure()) == (2, run.failure())
    assert [path.name for path in pupil.output.iterdir()] == ["mine"]


def test_an_output_is_not_needed_where_nothing_is_written(
    pupil: Pupil, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = pupil.folder / "here"
    here.mkdir()
    (here / "mine").write_text("mine")
    monkeypatch.chdir(here)
    flags = pupil.flags[: pupil.flags.index("--output")]
    told = call(*flags, "--dry-run", "--json").one()
    assert told["settings"]["output"]["value"] is None and told["memory"]["fits"]
    assert call(*flags, "--dry-run").code == 0
    assert [path.name for path in here.iterdir()] == ["mine"]
    assert call(*flags, "--dry-run", "--resume").code == 2


def test_json_has_the_preview_with_its_labels_and_the_graphics_cards(sft: Sft) -> None:
    told = sft("--dry-run", "--json").one()
    pieces = told["survey"]["preview"]
    assert pieces[1] == {"text": "<sop>", "learned": False, "special": True}
    assert [piece["learned"] for piece in pieces] == [False, False, True, True]
    assert "回答" in pieces[2]["text"]
    assert told["memory"]["cards"] == {"24": {"gradient_checkpointing": True}, "80": {}}
    assert told["memory"]["notes"] == ["a note"]
