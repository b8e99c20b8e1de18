"""The recorded first minute is what the program shows, and the READMEs show what was recorded."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from locations import ROOT

from medchat.demo_data import demo_examples


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Return scripts/first_minute.py."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("first_minute", ROOT / "scripts" / "first_minute.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pages(script: ModuleType) -> list[tuple[str, str, object]]:
    """Return each README and the recorded page in its language, with what was to be recorded."""
    return [
        ((ROOT / page.readme).read_text("utf-8"), (ROOT / page.path).read_text("utf-8"), page)
        for page in (script.CHINESE, script.ENGLISH)
    ]


def test_each_readme_shows_the_screens_of_the_recorded_page(script: ModuleType) -> None:
    for readme, page, _ in pages(script):
        assert script.with_screens(readme, page) == readme
        shown = readme.partition(script.BEGIN)[2].partition(script.END)[0]
        assert len(re.findall(r"^› ", shown, re.MULTILINE)) == len(script.IN_README)


def test_each_step_of_the_recorded_page_shows_what_was_typed_and_what_came_of_it(script: ModuleType) -> None:
    learned = {pair.question: pair.answer for pair in demo_examples()}
    for _, page, recorded in pages(script):
        assert page.startswith(recorded.head)  # type: ignore[attr-defined]
        for step in recorded.steps:  # type: ignore[attr-defined]
            section = page.partition(f"\n## {step.title}\n\n{step.said}\n\n```text\n")[2].partition(
                "\n```\n"
            )[0]
            typed, *rows = section.splitlines()
            assert typed.endswith(step.typed) and rows
            if step.typed in learned:
                answer = learned[step.typed][: script.KEPT]
                assert any(row.startswith(answer) for row in rows)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.terminal
def test_recorded_again_the_first_minute_is_the_same(
    script: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home: Path = tmp_path_factory.mktemp("home")
    for _, page, recorded in pages(script):
        assert script.record(recorded, home) == page
