"""The terminal's clipboard, through OSC 52. Untrusted text gets there in Base64 alone, and only when the user asks."""

from __future__ import annotations

import base64

#: Terminals take some 75 KB of text; xterm drops a longer sequence without a word.
MOST_BYTES = 74_994


def clipboard_sequence(text: str) -> str | None:
    """Return what puts `text` on the clipboard, None where it is too long for most terminals."""
    content = text.encode("utf-8", "replace")
    if len(content) > MOST_BYTES:
        return None
    return f"\x1b]52;c;{base64.b64encode(content).decode('ascii')}\x07"
