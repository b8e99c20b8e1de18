"""A page made of headings, paragraphs, tables, quotations and pictures, as Markdown and as one HTML file.

All text is untrusted: neither form lets it become markup.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medchat.language import current_language
from medchat.sanitize import escape_cell, sanitize


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A stretch of plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their heads. `numbers` are the columns (from 0) that stand to the right."""

    heads: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Quotation:
    """Words of a model or of the data, under who said them."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class CommandBlock:
    """Something to type."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG: the file it is kept in, what it shows, its text."""

    file: str
    shows: str
    svg: str


Block = Paragraph | Table | Quotation | CommandBlock | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A page. `metadata` becomes the front matter of Markdown and the meta elements of HTML."""

    title: str
    sections: Sequence[Section]
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture of the page."""
        return tuple(
            block for section in self.sections for block in section.blocks if isinstance(block, Picture)
        )


# ---------------------------------------------------------------- Markdown


def as_markdown(document: Document) -> str:
    """Return the page as Markdown; pictures are linked by their file names."""
    lines = [f"# {escape_cell(document.title)}"]
    for section in document.sections:
        lines += ["", f"## {escape_cell(section.title)}"]
        for block in section.blocks:
            lines += ["", *_markdown(block)]
    body = "\n".join(lines) + "\n"
    if not document.metadata:
        return body
    # JSON is YAML: what reads front matter reads this.
    head = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.metadata.items()]
    return "\n".join(["---", *head, "---", "", body])


def _markdown(block: Block) -> list[str]:
    match block:
        case Paragraph(text):
            return [escape_cell(text)]
        case Quotation(who, text):
            return [f"**{escape_cell(who)}**", "", f"> {escape_cell(text)}"]
        case CommandBlock(text):
            return ["```sh", sanitize(text).replace("```", ""), "```"]
        case Picture(file, shows):
            return [f"![{escape_cell(shows)}]({file})"]
    marks = ["---:" if at in block.numbers else ":---" for at in range(len(block.heads))]
    rows = [[escape_cell(text) for text in row] for row in (block.heads, *block.rows)]
    return [_row(rows[0]), _row(marks), *map(_row, rows[1:])]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---------------------------------------------------------------- HTML

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #8886; padding: .25rem .6rem; text-align: left; vertical-align: top; }
td { white-space: pre-wrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; background: white; }
blockquote, pre { background: #8882; margin: .3rem 0 1rem; padding: .5rem .8rem; overflow-x: auto; }
blockquote { white-space: pre-wrap; }
"""
#: Nothing is fetched, nothing runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def as_html(document: Document) -> str:
    """Return the page as one file: pictures inside it, no script, nothing fetched from elsewhere."""
    title = _escaped(document.title)
    meta = [
        f'<meta name="{_escaped(key)}" content="{_escaped(json.dumps(value, ensure_ascii=False))}">'
        for key, value in document.metadata.items()
    ]
    body = [f"<h1>{title}</h1>"]
    for section in document.sections:
        body.append(f"<h2>{_escaped(section.title)}</h2>")
        body += map(_html, section.blocks)
    language = "zh-CN" if current_language() == "zh" else "en"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="{language}"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width">',
            *meta,
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _html(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_escaped(text)}</p>"
        case Quotation(who, text):
            return f"<p><strong>{_escaped(who)}</strong></p><blockquote>{_escaped(text)}</blockquote>"
        case CommandBlock(text):
            return f"<pre><code>{_escaped(text)}</code></pre>"
        case Picture(_, shows, svg):
            data = base64.b64encode(svg.encode()).decode("ascii")
            return f'<p><img alt="{_escaped(shows)}" src="data:image/svg+xml;base64,{data}"></p>'
    rows = [_html_row("th", block.heads, block.numbers)]
    rows += [_html_row("td", row, block.numbers) for row in block.rows]
    return f"<table>{''.join(rows)}</table>"


def _html_row(element: str, row: Sequence[str], numbers: Sequence[int]) -> str:
    cells = (
        f"<{element}{' class=number' if at in numbers else ''}>{_escaped(text)}</{element}>"
        for at, text in enumerate(row)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _escaped(text: str) -> str:
    return html.escape(sanitize(text))
