"""Numbers of a run in words."""

from __future__ import annotations


def gib(size: float) -> str:
    """Return bytes as GiB, below a tenth of one as MiB, below one of those as KiB: memory comes in powers of two."""
    if size >= 0.1 * 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent."""
    return f"{part / whole:.2%}" if whole else "-"


def clock(seconds: float) -> str:
    """Return a length of time as 4:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
