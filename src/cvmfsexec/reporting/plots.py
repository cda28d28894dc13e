"""Plots of a job, as SVG to be put into a page: without scripts or anything fetched."""

import re
from collections.abc import Sequence
from typing import Any

from pygal import XY, Bar
from pygal.style import Style

_WIDTH, _HEIGHT = 900, 240
_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#555",
    foreground_strong="#222",
    foreground_subtle="#999",
    colors=("#1b6ca8",),
    font_family="sans-serif",
    opacity=".7",
    transition="0",
)

_NS_OF_UNITS = (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000), ("ns", 1))

Point = tuple[float, float | None]


def line_plot(title: str, points: Sequence[Point], top: float | None = None) -> str:
    """Draw something over the time of a job.

    Args:
        title: What it is, with its unit.
        points: Seconds, and the value; ``None`` for a moment that has none.
        top: Where the scale ends; ``None`` for the largest value.
    """
    chart = XY(
        range=None if top is None else (0, top),
        xrange=(0, max((at_s for at_s, _ in points), default=1)),
        include_x_axis=True,
        fill=True,
        show_dots=len(points) < 3,  # of a line there is nothing to be seen
        x_title="seconds",
        **_options(title),
    )
    chart.add(title, [point for point in points if point[1] is not None])
    return _rendered(chart)


def latency_plot(title: str, counts: Sequence[int]) -> str:
    """Draw how many requests took how long.

    Args:
        title: What it is.
        counts: By powers of two of nanoseconds (``format.gauges.LATENCY_BUCKETS``).
    """
    used = [bucket for bucket, count in enumerate(counts) if count] or [0]
    shown = range(used[0], used[-1] + 1)
    chart = Bar(x_label_rotation=40, **_options(title))
    chart.x_labels = [f"< {duration_text(1 << bucket)}" for bucket in shown]
    chart.add(title, [counts[bucket] if counts else 0 for bucket in shown])
    return _rendered(chart)


def duration_text(nanoseconds: int) -> str:
    """Return a duration in the largest unit that it has one of."""
    for name, size in _NS_OF_UNITS:
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {name}"
    return "0 s"


def _options(title: str) -> dict[str, Any]:
    return {
        "title": title,
        "style": _STYLE,
        "width": _WIDTH,
        "height": _HEIGHT,
        "js": [],
        "show_legend": False,
        "disable_xml_declaration": True,
    }


def _rendered(chart: Any) -> str:  # noqa: ANN401 -- pygal has no type hints
    return _COMMENT.sub("", chart.render(is_unicode=True))
