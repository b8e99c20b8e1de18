"""Rendering of a model's Markdown on the terminal, by rich with a few changes."""

from __future__ import annotations

from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderResult
from rich.containers import Lines
from rich.markdown import (
    BlockQuote,
    CodeBlock,
    Heading,
    ListElement,
    ListItem,
    Markdown,
    MarkdownContext,
    MarkdownElement,
    Paragraph,
    TableDataElement,
    TableElement,
)
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

from medchat.cli.cjk_wrap import LEAST_COLUMN, break_offsets
from medchat.repl.markdown_syntax import parsed


class MixedText(Text):
    """Text that wraps at `break_offsets`, and whose copies do."""

    def blank_copy(self, plain: str = "") -> MixedText:
        """Return `plain` with this text's layout, without its styles."""
        return MixedText(
            plain, self.style, justify=self.justify, overflow=self.overflow,
            no_wrap=self.no_wrap, end=self.end, tab_size=self.tab_size,
        )  # fmt: skip

    def copy(self) -> MixedText:
        """Return a copy: rich's own method would return a text that wraps as rich does."""
        copied = self.blank_copy(self.plain)
        copied.spans = self.spans.copy()
        return copied

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """Return the lines of this text, each at most `width` cells."""
        lines = Lines()
        for line in self.split(allow_blank=True):
            if "\t" in line:
                line.expand_tabs(tab_size)
            pieces = line.divide(break_offsets(line.plain, max(1, width)))
            for piece in pieces:
                piece.rstrip()
            aligned = justify or self.justify or "left"
            if aligned in ("center", "right"):  # "left" would pad every line with spaces
                pieces.justify(console, width, justify=aligned, overflow="fold")
            lines.extend(pieces)
        return lines


class _Paragraph(Paragraph):
    def on_enter(self, context: MarkdownContext) -> None:
        self.style = context.enter_style(self.style_name)
        self.text = MixedText(justify="left")


class _Heading(Heading):
    LEVEL_ALIGN = {}  # noqa: RUF012  # rich centres the first level

    def on_enter(self, context: MarkdownContext) -> None:
        self.text = MixedText()
        context.enter_style(self.style_name)


class _Code(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(
            str(self.text).rstrip(),
            self.lexer_name,
            theme="ansi_dark",
            word_wrap=True,
            background_color="default",
        )


class _Quotation(BlockQuote):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # rich marks quotations with the glyph of the program's own notices.
        lines = console.render_lines(
            self.elements, options.update(width=max(1, options.max_width - 2)), style=self.style
        )
        for line in lines:
            yield Segment("│ ", self.style)
            yield from line
            yield Segment("\n")


class _Item(ListItem):
    def behind(self, marker: str, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the item's lines after `marker`, all but the first indented by its width."""
        width = len(marker)
        style = console.get_style("markdown.item.bullet", default="none")
        narrowed = options.update(width=max(1, options.max_width - width))
        for number, line in enumerate(console.render_lines(self.elements, narrowed, style=self.style)):
            yield Segment(marker if number == 0 else " " * width, style)
            yield from line
            yield Segment("\n")


class _List(ListElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first = 1 if self.list_start is None else self.list_start
        widest = len(str(first + len(self.items) - 1))
        for index, item in enumerate(self.items):
            numbered = f"{first + index}.".rjust(widest + 1) + " "
            marker = "• " if self.list_type == "bullet_list_open" else numbered
            assert isinstance(item, _Item)
            yield from item.behind(marker, console, options)


class _Cell(TableDataElement):
    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> MarkdownElement:
        cell = super().create(markdown, token)
        assert isinstance(cell, TableDataElement)
        cell.content = MixedText("", justify=cell.justify)
        return cell


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # rich drops columns without room, and takes as long for columns that nobody sees.
        head = self.header.row if self.header else None
        if head is None or len(head.cells) * LEAST_COLUMN < options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for row in (head, *(self.body.rows if self.body else ())):
            yield MixedText(" | ").join(cell.content for cell in row.cells)


class ModelMarkdown(Markdown):
    """One or more blocks of a model's Markdown, already sanitized."""

    elements = {  # noqa: RUF012
        **Markdown.elements,
        "paragraph_open": _Paragraph,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
        "blockquote_open": _Quotation,
        "bullet_list_open": _List,
        "ordered_list_open": _List,
        "list_item_open": _Item,
        "table_open": _Table,
        "td_open": _Cell,
        "th_open": _Cell,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = parsed(text)


def rendered(text: str, console: Console, width: int) -> list[list[Segment]]:
    """Return the lines of `text` at `width` cells; as plain text if its Markdown cannot be rendered."""
    options = console.options.update(width=max(1, width), height=None)
    try:
        lines = console.render_lines(ModelMarkdown(text), options, pad=False)
    except Exception:  # an odd table must not cost the user the answer
        lines = console.render_lines(MixedText(text), options, pad=False)
    filled = [index for index, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
    return lines[filled[0] : filled[-1] + 1] if filled else []
