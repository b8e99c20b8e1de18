"""The interface of a screen, and the glyphs that are kept out of untrusted text."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from medchat.sanitize import sanitize, sanitize_line

#: Every line of the program among a model's text begins with this. Untrusted text never contains it.
OURS = "▌"

#: The prompt.
PROMPT = "›"

#: Block elements and ornaments that look like it, and the line characters of a fake frame.
_LOOK_ALIKES = "▀▁▂▃▄▅▆▇█▉▊▋▌▍▎▏▐▔▕▖▗▘▙▚▛▜▝▞▟❘❙❚⎸⎹⏐｜￨🭰🭱🭲🭳🭴🭵"
#: Characters that look like the prompt: a model could seem to quote the user, or to have finished.
_PROMPT_ALIKES = "›❯❱❭⟩"
#: Longer than any valid path.
_LONGEST_LINE = 5000
_UNFORGEABLE = str.maketrans(dict.fromkeys(_LOOK_ALIKES, "|") | dict.fromkeys(_PROMPT_ALIKES, "＞"))


class Tone(Enum):
    """The tone of a line of the program."""

    REMARK = "remark"
    WARNING = "warning"
    URGENT = "urgent"


def unforgeable(text: str) -> str:
    """Return already sanitized `text` without the glyphs of the program's lines and prompt. Works per character."""
    return text.translate(_UNFORGEABLE)


def untrusted(text: str) -> str:
    """Return `text` sanitized for display among the program's lines, so that it cannot imitate one."""
    return unforgeable(sanitize(text))


def untrusted_line(text: str) -> str:
    """Return a name or a path as `untrusted` does, and on one line: a second could imitate the program's."""
    return unforgeable(sanitize_line(text, _LONGEST_LINE))


class Screen(Protocol):
    """The display of a chat. Used by the main thread only."""

    @property
    def width(self) -> int:
        """How many cells a line takes."""
        ...

    def show(self, text: str) -> None:
        """Print the result of a command, unchanged. Untrusted words in it went through `untrusted`."""
        ...

    def tell(self, text: str, tone: Tone = Tone.REMARK) -> None:
        """Print the program's lines, each after the glyph, above an answer's unfinished part."""
        ...

    def wait_for(self, what: str, seconds: float = 0.0, progress: str = "") -> None:
        """Show what is pending and since when, in place of what was shown before. "" removes it.

        `progress` is shown if lines can be redrawn.
        """
        ...

    def show_typed(self, text: str) -> None:
        """Show what is being typed for the next prompt, below everything else. `text` is raw."""
        ...

    def piece(self, text: str) -> None:
        """Show the next piece of an answer. `text` is raw."""
        ...

    def end_answer(self) -> None:
        """Print the rest of the answer, and remove what is pending."""
        ...

    def tick(self) -> None:
        """Called about ten times a second during an operation."""
        ...

    def is_filled_by(self, text: str) -> bool:
        """Whether an answer of that text scrolls what precedes it off the screen."""
        ...

    def resumed(self) -> None:
        """Note that the program was suspended: redrawn rows stay where they are, above what was written since."""
        ...

    def ring(self) -> None:
        """Ring the terminal's bell, if there is one."""
        ...

    def use_theme(self, name: str) -> None:
        """Change the colours to one of THEMES, if there are any."""
        ...

    def clear(self) -> None:
        """Clear the screen, if there is one."""
        ...

    def copy(self, text: str) -> bool:
        """Send `text` to the terminal's clipboard. False if that is impossible; success is not reported by
        terminals.
        """
        ...
