"""Pictures of a run's curves. matplotlib is imported here and nowhere else, when a picture is drawn.

The axes are in English: no font for Chinese is needed then.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from medchat.sft_job.metrics import Metrics, Point

#: Inches, and dots an inch.
_SIZE, _DPI = (7.2, 3.6), 110


def loss_picture(metrics: Metrics) -> bytes:
    """Return a PNG of the training and the held-out loss by step; empty where nothing was logged."""
    return _picture(
        [("training", metrics.loss, "-"), ("held out", metrics.held_out_loss, "o-")], "loss per label token"
    )


def rate_picture(metrics: Metrics) -> bytes:
    """Return a PNG of the learning rate by step; empty where nothing was logged."""
    return _picture([("learning rate", metrics.learning_rate, "-")], "learning rate")


def _picture(curves: Sequence[tuple[str, Sequence[Point], str]], label: str) -> bytes:
    drawn = [curve for curve in curves if curve[1]]
    if not drawn:
        return b""
    # The object interface: no global state, no display, nothing left open.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points, style in drawn:
        steps = [point.step for point in points]
        axes.plot(steps, [point.value for point in points], style, label=name, markersize=4)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()
