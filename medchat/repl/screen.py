"""What is drawn, apart from how: the screen's operations, and the glyphs that no untrusted text ever holds."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from medchat.sanitize import sanitize, sanitize_line

#: Every line of ours among a model's words begins with this. No untrusted text ever holds it.
OURS = "▌"

#: What a line to be typed begins with.
PROMPT = "›"

#: Block elements and ornaments that could be taken for it, and the dividers a frame could be drawn with.
_LOOK_ALIKES = "▀▁▂▃▄▅▆▇█▉▊▋▌▍▎▏▐▔▕▖▗▘▙▚▛▜▝▞▟❘❙❚⎸⎹⏐｜￨🭰🭱🭲🭳🭴🭵"
#: What could be taken for the prompt: a model would seem to quote the user, or to hand over.
_PROMPT_ALIKES = "›❯❱❭⟩"
#: Longer than any path that a system takes.
_LONGEST_LINE = 5000
_UNFORGEABLE = str.maketrans(dict.fromkeys(_LOOK_ALIKES, "|") | dict.fromkeys(_PROMPT_ALIKES, "＞"))


class Tone(Enum):
    """How a line of ours is meant."""

    REMARK = "remark"
    WARNING = "warning"
    URGENT = "urgent"


def unforgeable(text: str) -> str:
    """Return already sanitized `text` without the glyphs of our lines and the prompt. Character by character."""
    return text.translate(_UNFORGEABLE)


def untrusted(text: str) -> str:
    """Return `text` fit to be shown among our lines: sanitized, and never like one of them."""
    return unforgeable(sanitize(text))


def untrusted_line(text: str) -> str:
    """Return a name or a path as `untrusted` does, and on one line: another could look like one of ours."""
    return unforgeable(sanitize_line(text, _LONGEST_LINE))


class Screen(Protocol):
    """Where a chat is shown. Used by the main thread only."""

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        ...

    def show(self, text: str) -> None:
        """Print the outcome of a command, as it stands. Untrusted words in it went through `untrusted`."""
        ...

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print lines of ours, each behind the glyph, above an answer's unfinished part."""
        ...

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Show what is pending and since when, in place of what was shown before. "" takes it away.

        `progress` is shown where a line can move.
        """
        ...

    def show_typed(self, text: str) -> None:
        """Show under all that moves what is being typed for the next prompt. `text` is raw."""
        ...

    def piece(self, text: str) -> None:
        """Show the next piece of an answer. `text` is raw."""
        ...

    def end_answer(self) -> None:
        """Print what is left of the answer, and take away what is waited for."""
        ...

    def tick(self) -> None:
        """Called some ten times a second while something is under way."""
        ...

    def is_filled_by(self, text: str) -> bool:
        """Whether an answer of that text drives what stands before it off the screen."""
        ...

    def resumed(self) -> None:
        """Take note that the program was suspended: what moved stays where it is, above what was written since."""
        ...

    def ring(self) -> None:
        """Ring the terminal's bell, where there is one."""
        ...

    def use_theme(self, name: str) -> None:
        """Take other colours, one of THEMES, where there are any."""
        ...

    def clear(self) -> None:
        """Empty the screen, where there is one."""
        ...

    def copy(self, text: str) -> bool:
        """Hand `text` to the terminal's clipboard. False if no terminal takes it; whether it did, none says."""
        ...
