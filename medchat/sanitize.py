"""The one door for untrusted text on its way to the screen.

Model output, file names, plugin metadata and error text pass through here before they are printed, so none of
them can move the cursor, set a title or the clipboard, reorder what is read, hide words or forge our own
notices. Independent of terminals, widths or colours; stored sessions and JSON keep the original text. What
comes out is plain text: print it as such (never as rich markup).

Two stages, each safe to run on text arriving in pieces:

1. Escape sequences are dropped whole (their parameters and strings too), other controls and invisible
   code points are dropped, every kind of line end becomes a newline, a lone surrogate becomes U+FFFD.
2. A variation selector stays only behind a visible character, a zero-width joiner only between emoji.
"""

from __future__ import annotations

import re

_C0_OR_C1 = r"\x00-\x1f\x7f-\x9f"
_STRING_START = r"(?:\x1b[P\]X^_]|[\x90\x98\x9d-\x9f])"  # DCS, OSC, SOS, PM, APC
# A string ends at the next control: its terminator (dropped by the rules for controls and escapes) or,
# unterminated, the end of the line. A real terminal would continue swallowing, but then one stray byte could
# hide the rest of an answer.
_STRING = _STRING_START + rf"[^{_C0_OR_C1}\u2028\u2029]*+"
_CSI = r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+"
_ESCAPE = r"\x1b(?![P\]X^_\[])[ -/]*+"
_LINE_END = r"\r\n?|[\x0b\x0c\x85\u2028\u2029]"
_HIDDEN = (
    r"\x00-\x08\x0e-\x1f\x7f-\x9f"  # C0 and C1 controls but for tab and the line ends
    r"\u00ad\u034f\u061c"  # soft hyphen, grapheme joiner, Arabic letter mark
    r"\u115f\u1160\u3164\uffa0"  # Hangul fillers: blank, used to fake empty names
    r"\u17b4\u17b5\u180b-\u180f"  # Khmer and Mongolian invisible marks
    r"\u200b\u200c\u200e\u200f"  # zero-width space and non-joiner, direction marks
    r"\u202a-\u202e\u2060-\u206f"  # embeddings, overrides, isolates, invisible operators
    r"\ufeff\ufff0-\ufffb"  # byte order mark, interlinear annotation
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # shorthand and musical format controls
    r"\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags: a hidden copy of ASCII
)
_STAGE_ONE = re.compile(
    rf"(?P<line>{_LINE_END})|(?P<broken>[\ud800-\udfff])"
    rf"|{_STRING}|{_CSI}[@-~]?|{_ESCAPE}[0-~]?|[{_HIDDEN}]"
)
#: A sequence at the very end of a piece that the next piece may continue.
_UNFINISHED = re.compile(
    rf"(?:(?P<string>{_STRING_START})[^{_C0_OR_C1}\u2028\u2029]*+"
    rf"|(?P<csi>\x1b\[|\x9b)[0-?]*+(?P<middle>[ -/]*+)|\x1b[ -/]*+|\r)\Z"
)

_SELECTORS = r"\ufe00-\ufe0f\U000e0100-\U000e01ef"
_EMOJI = r"\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_STAGE_TWO = re.compile(
    rf"(?<![^\s\u200d{_SELECTORS}])[{_SELECTORS}]"
    rf"|\u200d(?:(?<![{_EMOJI}]\u200d)(?<![{_EMOJI}]\ufe0f\u200d)|(?![{_EMOJI}]))"
)
_NEEDS_STAGE_TWO = re.compile(rf"[\u200d{_SELECTORS}]")
_BLANKS = re.compile(r"[\n\t ]+")


def sanitize(text: str) -> str:
    """Return `text` with nothing left that a terminal would obey or a reader could be fooled by.

    Newlines and tabs stay; Chinese, emoji and Markdown come back unchanged. Idempotent, and never
    longer than `text`.
    """
    return _join_checked(_strip_controls(text))


def sanitize_line(text: str, limit: int = 200) -> str:
    """Return `text` made safe to print on one line, at most `limit` characters, "…" showing what was cut.

    For file names, plugin metadata and error text inside a sentence of ours.
    """
    line = _BLANKS.sub(" ", sanitize(text)).strip()
    if len(line) <= limit:
        return line
    return line[: max(0, limit - 1)].rstrip("\u200d ") + "…"


class StreamSanitizer:
    """`sanitize` for text that arrives in pieces, however they are cut.

    What `feed` returns in order, then `flush`, joined, equals `sanitize` of the whole. Only an unfinished
    sequence is held back; ordinary text comes out at once. Not for several threads at a time.
    """

    def __init__(self) -> None:
        self._held = ""  # stage one: the beginning of an unfinished sequence
        self._before = ""  # stage two: the last two characters that went past it
        self._joiner = ""  # stage two: a joiner whose right neighbour is still to come

    def feed(self, piece: str) -> str:
        """Take the next piece and return what may be shown now."""
        text = self._held + piece
        unfinished = _UNFINISHED.search(text)
        if unfinished is None:
            self._held = ""
            return self._second_stage(_strip_controls(text), final=False)
        self._held = _shortest_equivalent(unfinished)
        return self._second_stage(_strip_controls(text[: unfinished.start()]), final=False)

    def flush(self) -> str:
        """Return what was held back: the text has ended. The stream may then be used for a new one."""
        rest = self._second_stage(_strip_controls(self._held), final=True)
        self._held = self._before = self._joiner = ""
        return rest

    def _second_stage(self, text: str, *, final: bool) -> str:
        text = self._joiner + text
        self._joiner = "\u200d" if text.endswith("\u200d") and not final else ""
        text = text.removesuffix(self._joiner)
        shown = _join_checked(self._before + text, start=len(self._before))
        self._before = (self._before + text)[-2:]
        return shown


def _strip_controls(text: str) -> str:
    return _STAGE_ONE.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    if match.lastgroup == "line":
        return "\n"
    return "\ufffd" if match.lastgroup == "broken" else ""


def _join_checked(text: str, start: int = 0) -> str:
    """Return `text` from `start` on without its stray selectors and joiners; what lies before is context."""
    if not _NEEDS_STAGE_TWO.search(text, start):
        return text[start:]
    pieces = []
    for match in _STAGE_TWO.finditer(text, start):
        pieces.append(text[start : match.start()])
        start = match.end()
    return "".join(pieces) + text[start:]


def _shortest_equivalent(unfinished: re.Match[str]) -> str:
    """Return a shorter beginning that the next piece continues in the same way.

    Parameters and strings are dropped in the end, so an endless one costs no memory.
    """
    if start := unfinished["string"]:
        return start
    if start := unfinished["csi"]:
        return start + unfinished["middle"][:1]
    return unfinished[0][:2]


# Untrusted text on its way into a page of Markdown: nothing in it that a terminal, Markdown or HTML acts upon.

_ACTIVE = re.compile(r"[\\`*_\[\]|~$#!]|:(?=//)|(?<=\bwww)\.|@")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape_cell(text: str) -> str:
    """Return `text` as the content of a table cell: it shows as it is written, on one line of the source."""
    plain = sanitize(text).strip().replace("\t", " ")
    escaped = _ACTIVE.sub(r"\\\g<0>", plain)
    for character, entity in _ENTITIES.items():
        escaped = escaped.replace(character, entity)
    return escaped.replace("\n", "<br>")
