"""What comments, docstrings and pages cite can be read: the page is in the repository and has the heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from locations import ROOT

SUFFIXES = {".py", ".md", ".toml", ".txt", ".sh", ".yml", ".yaml", ".json"}
FOLDERS = ("medchat", "plugins", "templates", "examples", "benchmarks", "scripts", "tests", "docs")
CITED = re.compile(r"docs/specs/(?P<page>[\w.-]+)(?:, \"(?P<heading>[^\"]+)\")?")
#: A path without `docs/`, and words that point at a text which is not here.
UNREADABLE = re.compile(
    r"(?<![\w/])specs[/]|(?<!\w)specs[:] |(?i:specification[:]|(?:specification|spec) sections? \d"
    r"|(?:backbones|chatglm-6b),? sections? \d)"
)


def text_files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.suffix in SUFFIXES)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in SUFFIXES and path.is_file():
                yield path
    yield ROOT / ".ci" / "run"


def unwrapped(text: str) -> str:
    """Return the text with wrapped lines joined, a comment's signs left out."""
    return re.sub(r"\s*\n[ \t]*(?:#:?)?[ \t]*", " ", text)


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+?)\s*$", page.read_text(encoding="utf-8"), re.MULTILINE))


def dangling(text: str) -> list[str]:
    """Return the citations in a text that lead nowhere, or are not in the one form."""
    found = []
    for match in CITED.finditer(unwrapped(text)):
        page, heading = ROOT / "docs" / "specs" / match["page"], match["heading"]
        if not page.is_file() or heading is None or heading not in headings(page):
            found.append(match[0])
    return found + UNREADABLE.findall(unwrapped(text))


def test_every_citation_leads_to_a_heading() -> None:
    wrong, followed = {}, 0
    for path in text_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        followed += len(CITED.findall(unwrapped(text)))
        if found := dangling(text):
            wrong[str(path.relative_to(ROOT))] = found
    assert not wrong
    assert followed >= 50


#: Put together here, so that this file holds no such citation itself.
PAGES, SECTION = "docs/specs" + "/", "section " + "3"


@pytest.mark.parametrize(
    "text",
    [
        f'{PAGES}models.md, "No such heading"',
        f'{PAGES}nowhere.md, "Bloom"',
        f"{PAGES}models.md",
        "# the layout (" + PAGES.removeprefix("docs/") + "sft.md,\n# Small runs)",
        f"Specification{':'} chatglm-6b.",
        f"as the chatglm-6b, {SECTION} has it",
        f"read (specification\n{SECTION})",
    ],
)
def test_a_citation_that_leads_nowhere_is_found(text: str) -> None:
    assert dangling(text)


def test_a_citation_may_be_wrapped() -> None:
    assert not dangling(f'#: Sizes ({PAGES}models.md, "ChatGLM-6B\n    #: block").')
