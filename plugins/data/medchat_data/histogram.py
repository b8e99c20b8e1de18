"""How many texts are how long, as an SVG picture of bars that needs no library."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

#: The picture and its bars, in pixels: width and height, then left, top, right, bottom.
_WIDTH, _HEIGHT = 720, 240
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 12, 704, 200
#: The bars at the most.
_BARS = 40
_NICE = (1, 2, 5)


def histogram(sizes: Sequence[int], label: str, limit: int | None = None) -> str:
    """Return an SVG of how many of the `sizes` fall into stretches of one width, `limit` as a line across it.

    `label` stands under the axis. Of no sizes an empty picture is drawn.
    """
    longest = max([*sizes, limit or 0, 1])
    width = bar_width(longest)
    bars = Counter(size // width for size in sizes)
    count = longest // width + 1
    pixels = (_RIGHT - _LEFT) / count
    tallest = max(bars.values(), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    ]
    for place, texts in sorted(bars.items()):
        tall = (_BOTTOM - _TOP) * texts / tallest
        left = _LEFT + place * pixels
        said = f"{place * width}" if width == 1 else f"{place * width}–{(place + 1) * width - 1}"
        parts.append(
            f'<rect x="{left:.1f}" y="{_BOTTOM - tall:.1f}" width="{max(pixels - 1, 0.5):.1f}" height="{tall:.1f}" '
            f'fill="#4292c6"><title>{said}: {texts}</title></rect>'
        )
    for place in range(0, count, max(1, count // 8)):
        x = _LEFT + place * pixels
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{place * width}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end">{tallest}</text>')
    parts.append(f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#333"/>')
    if limit is not None:
        x = _LEFT + (limit + 1) / width * pixels  # right of the longest that is not cut
        parts.append(f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="#d62728"/>')
    middle = (_LEFT + _RIGHT) // 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(label)}</text>')
    return "".join([*parts, "</svg>\n"])


def bar_width(longest: int) -> int:
    """Return the least width of 1, 2 or 5 times a power of ten with which the bars reach `longest`."""
    power = 1
    while True:
        for factor in _NICE:
            if longest // (factor * power) < _BARS:
                return factor * power
        power *= 10
