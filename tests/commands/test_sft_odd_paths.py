"""A path whose bytes are not UTF-8 has no place in the file of a run: it is refused before anything is written."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_program import Call
from scripted_recipe import Pupil

pytest_plugins = ("cli_program",)

NO_UTF_8 = os.fsdecode("训练".encode("gb18030"))


@pytest.fixture
def pupil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pupil]:
    made = Pupil(tmp_path / "pupil")
    monkeypatch.syspath_prepend(made.site)
    yield made


def renamed(pupil: Pupil, flag: str, name: str) -> list[str]:
    """Return the flags with the file or folder of `flag` called `name`; what is there is moved."""
    words = list(pupil.flags)
    place = words.index(flag) + 1
    old, new = Path(words[place]), Path(words[place]).with_name(name)
    if old.exists():
        old.rename(new)
    words[place] = str(new)
    return words


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize("flag", ["--output", "--data", "--model"])
def test_it_is_refused_by_name(pupil: Pupil, call: Call, flag: str, more: tuple[str, ...]) -> None:
    words = renamed(pupil, flag, f"{NO_UTF_8}.jsonl")
    outcome = call(*words, *more)
    assert outcome.code == 2 and outcome.failure(), outcome.err
    assert flag.removeprefix("--") in outcome.failure()[0] and "UTF-8" in outcome.failure()[0]
    assert not Path(words[words.index("--output") + 1]).exists()


def test_so_it_is_where_the_folder_one_stands_in_is_such_a_one(
    pupil: Pupil, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = pupil.folder / NO_UTF_8
    here.mkdir()
    monkeypatch.chdir(here)
    words = list(pupil.flags)
    words[words.index("--output") + 1] = "out"
    outcome = call(*words)
    assert outcome.code == 2 and "output" in outcome.failure()[0] and not list(here.iterdir())


def test_any_other_name_is_written_so_that_it_reads_back(pupil: Pupil, call: Call) -> None:
    words = renamed(pupil, "--data", '训"练\\\x7f\t😀.jsonl')
    outcome = call(*words)
    assert outcome.code == 0, outcome.err
    kept = tomllib.loads((pupil.output / "sft.toml").read_text(encoding="utf-8"))
    assert kept["data"] == [words[words.index("--data") + 1]]
