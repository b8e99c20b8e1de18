"""A page of documentation in two languages: what has to be equal in both, section by section."""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medchat.cli.help_page import PLACEHOLDERS
from medchat.repl.commands import COMMANDS

#: The Chinese names of slash commands by the English ones: a page names them in its own language.
_ENGLISH_NAMES = {f"/{command.zh_name}": f"/{command.name}" for command in COMMANDS}
_ENGLISH_PLACEHOLDERS = {chinese: english.lower() for english, chinese in PLACEHOLDERS.items()}
_PLACEHOLDER = re.compile(r"^(?:[A-Z]{2,}|file|[^\x00-\x7f]+)$")
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Section:
    """The text below a heading, up to the next one."""

    level: int
    heading: str
    text: str

    def contents(self) -> Mapping[str, Counter[str]]:
        """Return the kinds of content that a translation keeps, each with how often it has what."""
        prose = re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        lines = prose.splitlines()
        spans = re.findall(r"``(.+?)``|`([^`]+)`", prose.replace("\n", " "))
        plain = re.sub(r"``.+?``|`[^`]+`|\]\([^)]*\)", " ", prose.replace("\n", " "))
        return {
            "code blocks": Counter(_blocks(self.text)),
            "tables (rows x columns)": Counter(_shapes(lines)),
            "items of lists": Counter(
                line[: len(line) - len(line.lstrip())] + "-" for line in lines if re.match(" *[-*] ", line)
            ),
            "numbered items": Counter(number for line in lines for number in re.findall(r"^(\d+)\. ", line)),
            "code": Counter(set(map(_in_english, ("".join(pair) for pair in spans)))),
            "figures": Counter(_figures(plain)),
            "links": Counter(_links(self.text)),
        }


def differences(english: str, chinese: str) -> list[str]:
    """Return what one page has and the other lacks; "" as a page has a heading of its own."""
    ours, theirs = list(_sections(english)), list(_sections(chinese))
    levels = [[section.level for section in page] for page in (ours, theirs)]
    if levels[0] != levels[1]:
        at = next(
            (index for index, pair in enumerate(zip(*levels, strict=False)) if pair[0] != pair[1]),
            min(map(len, levels)),
        )
        return [f"headings differ from the {at + 1}th on: {_named(ours, at)} / {_named(theirs, at)}"]
    found = []
    for one, other in zip(ours, theirs, strict=True):
        here, there = one.contents(), other.contents()
        for kind in here:
            only = here[kind] - there[kind], there[kind] - here[kind]
            if any(only):
                found.append(
                    f"under {one.heading!r} / {other.heading!r}, {kind}: "
                    f"only in English {sorted(only[0].elements())}, only in Chinese {sorted(only[1].elements())}"
                )
    return found


def _sections(page: str) -> Iterator[Section]:
    level, heading, text, fenced = 0, "", [], False
    for line in page.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (match := re.match(r"(#+) (.*)", line)):
            yield Section(level, heading, "\n".join(text))
            level, heading, text = len(match[1]), match[2], []
        else:
            text.append(line)
    yield Section(level, heading, "\n".join(text))


def _named(page: list[Section], index: int) -> str:
    return repr(page[index].heading) if index < len(page) else "none"


def _blocks(text: str) -> Iterator[str]:
    """Yield each code block without its comments, which are translated; of a screen only that there is one."""
    for block in re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE):
        screen = block.startswith("```text\n")
        yield "```text" if screen else re.sub(r" +# .*$", "", block, flags=re.MULTILINE)


def _shapes(lines: list[str]) -> Iterator[str]:
    """Yield the size of each table and what is in code in the first cell of each of its rows."""
    rows: list[list[str]] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            rows.append(re.split(r"(?<!\\)\|", line.strip("|")))
        elif rows:
            yield f"{len(rows)} x {'/'.join(sorted({str(len(row)) for row in rows}))}"
            yield from (" ".join(map(_in_english, re.findall(r"`([^`]+)`", row[0]))) for row in rows[2:])
            rows = []


def _figures(prose: str) -> Iterator[str]:
    """Yield the numbers of a text, a month's name as its number."""
    for number, name in enumerate(calendar.month_name):
        prose = re.sub(rf"\b{name}\b", f"{number}", prose) if name else prose
    yield from _FIGURE.findall(prose)


def _in_english(span: str) -> str:
    """Return a slash command by its English name, with `_` for what stands for a name, a file or an id."""
    command, *words = span.split(" ")
    if not command.startswith("/"):
        return re.sub("[^\x00-\x7f]+", lambda word: _ENGLISH_PLACEHOLDERS.get(word[0], word[0]), span)
    named = (_ENGLISH_NAMES.get(f"/{word}", word).removeprefix("/") for word in words)
    return " ".join([_ENGLISH_NAMES.get(command, command), *(_PLACEHOLDER.sub("_", word) for word in named)])


def _links(text: str) -> Iterator[str]:
    """Yield where the links lead, a page in either language by its name; not the one to the other language."""
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
        if label not in ("中文", "English"):
            page, _, section = target.removeprefix("../").removeprefix("zh/").partition("#")
            yield f"{page}{'#' if section else ''}"
