"""Parsing of a model's Markdown, and which of its blocks are finished.

HTML, links, images, entities and references are not parsed. They stay as they were written, so no address
hides behind other words and nothing escapes the sanitizer by being decoded after it. A single newline stays a
newline: chat models mean it.
"""

from __future__ import annotations

from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline.state_inline import Scanned, StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType
from rich.cells import cell_len


class _ChineseState(StateInline):
    """Decides where emphasis begins and ends in text without spaces between words."""

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:
        """Return whether the markers at `start` can open or close emphasis.

        CommonMark requires spaces around punctuation, so `**注意：**多喝水` would show its asterisks: here a wide
        neighbour counts as a space. Between two ASCII letters or digits a marker is literal: `2*3*5` must not
        become 235.
        """
        scanned = super().scanDelims(start, canSplitWord)
        end = start + scanned.length
        before = self.src[start - 1] if start else " "
        behind = self.src[end] if end < self.posMax else " "
        if all(character.isascii() and character.isalnum() for character in (before, behind)):
            return Scanned(False, False, scanned.length)
        wide_before, wide_behind = cell_len(before) == 2, cell_len(behind) == 2
        return Scanned(
            scanned.can_open or (wide_before and not behind.isspace()),
            scanned.can_close or (wide_behind and not before.isspace()),
            scanned.length,
        )


class _ChineseInline(ParserInline):
    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        """Parse one inline run, as the base class does, with `_ChineseState`."""
        state = _ChineseState(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark")
    parser.inline = _ChineseInline()
    parser.configure("commonmark").enable(["strikethrough", "table"])
    return parser.disable(["html_block", "html_inline", "link", "image", "autolink", "entity", "reference"])


_PARSER = _parser()
#: Finds blocks only: parsing inlines takes most of the time and changes no block boundary.
_BLOCKS = _parser().disable(["inline"])


def parsed(text: str) -> list[Token]:
    """Return the tokens of `text`, with hard line breaks."""
    tokens = _PARSER.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return tokens


def split_finished(text: str) -> tuple[list[str], str]:
    """Return the blocks of `text` that no later text can change, and the unfinished rest.

    A block is a paragraph, heading, list, table, fence or quotation at the top level. Only the last one can
    still grow: once another has begun, those before it are final. The pieces joined are `text`.
    """
    tokens = _BLOCKS.parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return [], text
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    borders = [0, *starts[1:], len(lines)]
    pieces = ["".join(lines[start:end]) for start, end in pairwise(borders)]
    return pieces[:-1], pieces[-1]
