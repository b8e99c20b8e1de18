"""The curves of a run as SVG: readable at any size, and no plotting library is needed.

The labels are in English, like the names of the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from medchat.sft_job.metrics import Metrics, Point

#: The image and its plot area, in pixels: width, height, then left, top, right, bottom.
_WIDTH, _HEIGHT = 720, 360
_LEFT, _TOP, _RIGHT, _BOTTOM = 78, 16, 704, 312
#: The approximate number of grid lines on an axis.
_TICKS = 6
_LEAST_SPREAD = 1e-300
_COLOURS = ("#1f77b4", "#d62728")
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
    f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">'
    f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
)


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    points: Sequence[Point]
    #: Whether each point is marked, for curves of few points.
    dots: bool = False


def loss_picture(metrics: Metrics) -> str:
    """Return an SVG of the training and the held-out loss by step; empty if nothing was logged."""
    return _picture(
        [_Curve("training", metrics.loss), _Curve("held out", metrics.held_out_loss, dots=True)],
        "loss per label token",
    )


def rate_picture(metrics: Metrics) -> str:
    """Return an SVG of the learning rate by step; empty if nothing was logged."""
    return _picture([_Curve("learning rate", metrics.learning_rate)], "learning rate")


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values from `low` to `high` (`low` < `high`) along pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        # Wide enough for distinct floats, even if all values are equal or nearly zero.
        spread = max(high - low, 1e-9 * max(abs(low), abs(high)), _LEAST_SPREAD)
        margin = 0.04 * spread
        return cls(low - margin, high + margin, start, end)

    def pixel(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        """Multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield count * step


def _picture(curves: Sequence[_Curve], label: str) -> str:
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return ""
    points = [point for curve in drawn for point in curve.points]
    across = _Axis.over([float(point.step) for point in points], _LEFT, _RIGHT)
    up = _Axis.over([point.value for point in points], _BOTTOM, _TOP)
    parts = [_HEAD, *_grid(across, up, label)]
    for at, (curve, colour) in enumerate(zip(drawn, _COLOURS, strict=False)):
        parts += _drawn(curve, colour, across, up)
        parts.append(
            f'<text x="{_RIGHT - 90}" y="{_TOP + 16 * (at + 1)}" fill="{colour}">{curve.name}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _grid(across: _Axis, up: _Axis, label: str) -> Iterator[str]:
    for value in across.ticks():
        x = across.pixel(value)
        yield f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{value:.10g}</text>'
    for value in up.ticks():
        y = up.pixel(value)
        yield f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    yield f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#333"/>'
    middle = (_TOP + _BOTTOM) // 2
    yield f'<text x="{(_LEFT + _RIGHT) // 2}" y="{_HEIGHT - 8}" text-anchor="middle">step</text>'
    yield f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{label}</text>'


def _drawn(curve: _Curve, colour: str, across: _Axis, up: _Axis) -> Iterator[str]:
    pixels = [(across.pixel(point.step), up.pixel(point.value)) for point in _thinned(curve.points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    if curve.dots or len(pixels) == 1:
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in pixels)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Keep two points per pixel, the lowest and the highest, so that a long run gives a small file."""
    stretch = -(-len(points) // (_RIGHT - _LEFT))
    if stretch <= 2:
        return points
    kept: list[Point] = []
    for start, end in pairwise([*range(0, len(points), stretch), len(points)]):
        part = points[start:end]
        extremes = {min(part, key=lambda point: point.value), max(part, key=lambda point: point.value)}
        kept += sorted(extremes, key=lambda point: point.step)
    return kept
