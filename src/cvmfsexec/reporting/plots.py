"""Plots of a job, as SVG to be put into a page: without scripts or anything fetched.

Two kinds are all that a report needs: something over time, and a histogram.
"""

import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 900, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 15, 34, 44  # margins, for a title and for scales
_PLOT_WIDTH = _WIDTH - _LEFT - _RIGHT
_PLOT_HEIGHT = _HEIGHT - _TOP - _BOTTOM
_TICKS = 5
_BAR_SHARE = 0.8
_LABELS_MAX = 12  # side by side
_DOT = 3

_NS_OF_UNITS = (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000), ("ns", 1))

Point = tuple[float, float | None]


def line_plot(title: str, points: Sequence[Point], top: float = 0.0) -> str:
    """Draw something over the time of a job.

    Args:
        title: What it is, with its unit.
        points: Seconds, and the value; ``None`` for a moment that has none.
        top: Where the scale ends, unless a value is larger.
    """
    known = [(at_s, value) for at_s, value in points if value is not None]
    end = max((at_s for at_s, _ in points), default=0.0) or 1.0
    scale = _Scale(max([top, *(value for _, value in known)]))
    places = [(_LEFT + at_s / end * _PLOT_WIDTH, scale.y(v)) for at_s, v in known]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = [
        _mark(_LEFT + at_s / end * _PLOT_WIDTH, f"{at_s:g} s") for at_s in _ticks(end)
    ]
    drawn = [
        f'<polyline class="line" points="{path}"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}"/>' for x, y in places[:1]),
    ]
    return _plot(title, [*scale.lines(), *marks, *drawn])


def latency_plot(title: str, counts: Sequence[int]) -> str:
    """Draw how many requests took how long.

    Args:
        title: What it is.
        counts: By powers of two of nanoseconds (``format.gauges.LATENCY_BUCKETS``).
    """
    used = [bucket for bucket, count in enumerate(counts) if count]
    shown = range(used[0], used[-1] + 1) if used else range(0)
    scale = _Scale(max(counts, default=0))
    step = _PLOT_WIDTH / max(len(shown), 1)
    parts = scale.lines()
    for place, bucket in enumerate(shown):
        x, y = _LEFT + place * step, scale.y(counts[bucket])
        label = duration_text(1 << bucket)
        parts += [
            f'<rect x="{x + step * (1 - _BAR_SHARE) / 2:.1f}" y="{y:.1f}" '
            f'width="{step * _BAR_SHARE:.1f}" height="{scale.y(0) - y:.1f}">'
            f"<title>{counts[bucket]:,} took less than {label}</title></rect>",
        ]
        if place % (len(shown) // _LABELS_MAX + 1) == 0:
            parts.append(_mark(x + step / 2, f"< {label}"))
    return _plot(title, parts)


def duration_text(nanoseconds: int) -> str:
    """Return a duration in the largest unit that it has one of."""
    for name, size in _NS_OF_UNITS:
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {name}"
    return "0 s"


class _Scale:
    """The vertical scale, from nothing to a round number above the largest value."""

    def __init__(self, largest: float) -> None:
        self._ticks = _ticks(largest or 1.0)
        self._top = max(largest, self._ticks[-1]) or 1.0

    def y(self, value: float) -> float:
        """Return where a value is drawn."""
        return _TOP + _PLOT_HEIGHT * (1 - value / self._top)

    def lines(self) -> list[str]:
        """Return the lines across the plot, with what they stand for."""
        return [
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{self.y(tick):.1f}" '
            f'y2="{self.y(tick):.1f}"/><text class="scale" x="{_LEFT - 8}" '
            f'y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>'
            for tick in self._ticks
        ]


def _ticks(largest: float) -> list[float]:
    """Return some round numbers from 0 up to, or just below, a positive one."""
    rough = largest / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
    return [number * step for number in range(int(largest / step + 1e-9) + 1)]


def _mark(x: float, text: str) -> str:
    y = _HEIGHT - _BOTTOM + 18
    return (
        f'<text class="scale" x="{x:.1f}" y="{y}" text-anchor="middle">'
        f"{html.escape(text)}</text>"
    )


def _plot(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f'<text class="title" x="{_LEFT}" y="18">{html.escape(title)}</text>'
        f"{''.join(parts)}</svg>"
    )
