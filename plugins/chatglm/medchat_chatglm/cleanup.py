"""The original chat function's postprocessing of an answer, at once or streaming.

Rules: docs/specs/models.md, "Answer cleanup". The v1.1 rules widen folded punctuation; the v0 rules do not.
"""

from __future__ import annotations

from medchat.inference.postprocess import StreamingCleanup, clean_answer

#: The placeholder for its date in the training data, and the original's replacement.
DATE_MARKER = "[[训练时间]]"
DATE_TEXT = "2023年"


def process_response(text: str, *, full_width: bool) -> str:
    """Return the answer as shown by the original. `full_width` is True for v1.1 and False for v0/Med."""
    return clean_answer(text, replaced={DATE_MARKER: DATE_TEXT}, full_width=full_width)


class StreamingResponse(StreamingCleanup):
    """`process_response` for streamed text: what it has returned never changes."""

    def __init__(self, *, full_width: bool) -> None:
        """`full_width` is that of `process_response`."""
        super().__init__(replaced={DATE_MARKER: DATE_TEXT}, full_width=full_width)
