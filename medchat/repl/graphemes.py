"""What a reader takes for one character may be several code points (👍🏽, 👨‍👩‍👧): keys act on the whole of it."""

from __future__ import annotations

from prompt_toolkit.filters import is_searching
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from wcwidth import iter_graphemes

#: So many code points at most are looked at for one character.
_LONGEST = 64


def last_length(text: str) -> int:
    """Return how many code points the last character of `text` has; 0 where there is none."""
    *_, last = ("", *iter_graphemes(text[-_LONGEST:]))
    return len(last)


def first_length(text: str) -> int:
    """Return how many code points the first character of `text` has; 0 where there is none."""
    return len(next(iter_graphemes(text[:_LONGEST]), ""))


def bind_keys(keys: KeyBindings) -> None:
    """Let Backspace, Delete, Left and Right act on whole characters."""

    @keys.add("backspace", filter=~is_searching)
    def _before(event: KeyPressEvent) -> None:
        for _ in range(event.arg):
            buffer = event.current_buffer
            buffer.delete_before_cursor(last_length(buffer.document.text_before_cursor))

    @keys.add("delete", filter=~is_searching)
    def _after(event: KeyPressEvent) -> None:
        for _ in range(event.arg):
            buffer = event.current_buffer
            buffer.delete(first_length(buffer.document.text_after_cursor))

    @keys.add("left", filter=~is_searching)
    def _left(event: KeyPressEvent) -> None:
        for _ in range(event.arg):
            buffer = event.current_buffer
            buffer.cursor_left(last_length(buffer.document.current_line_before_cursor))

    @keys.add("right", filter=~is_searching)
    def _right(event: KeyPressEvent) -> None:
        for _ in range(event.arg):
            buffer = event.current_buffer
            buffer.cursor_right(first_length(buffer.document.current_line_after_cursor))
