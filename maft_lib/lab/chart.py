"""Accuracies over iterations of finetuning as a small inline SVG. Knows points, no studies.

Colours, markers and lines are those of the figures (`plots.style`); the stylesheet mixes a colour with
that of the text, so that dark ones can be seen on dark paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from maft_lib.lab.page import escaped

LEFT, RIGHT, TOP, BOTTOM = 34, 10, 8, 34  # around the axes, in pixels
MARKERS = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-3.5-3.5h7v7h-7z",
    "^": "M0-5L4.5 3.5h-9z",
    "v": "M0 5L4.5-3.5h-9z",
    "<": "M-5 0L3.5-4.5v9z",
    ">": "M5 0L-3.5-4.5v9z",
    "D": "M0-5L5 0L0 5L-5 0z",
    "d": "M0-5.5L3.5 0L0 5.5L-3.5 0z",
    "X": "M-3.5-3.5L3.5 3.5M-3.5 3.5L3.5-3.5",
    "P": "M0-4.5V4.5M-4.5 0H4.5",
    "*": "M0-5.5L1.6-1.8L5.2-1.7L2.4.7L3.4 4.6L0 2.4L-3.4 4.6L-2.4.7L-5.2-1.7L-1.6-1.8z",
}
MANY_SIDES = "M-4.5 0L-2.3-4h4.6L4.5 0L2.3 4h-4.6z"
DASHES = {"-": "", "--": "6 3", "-.": "6 3 1.5 3", ":": "1.5 3"}
OTHER_DASHES = ("", "7 2", "2 2", "9 3 2 3")  # of the second, third, ... series of one method


class Point(NamedTuple):
    """Accuracy and its standard error after an iteration, in percent."""

    iteration: int
    accuracy: float
    error: float


class Series(NamedTuple):
    """A method's points, in the order of iterations; `variant` tells series of one method apart."""

    name: str
    color: str
    marker: str
    linestyle: str
    points: Sequence[Point]
    variant: int = 0


class Axes(NamedTuple):
    """Where iterations 0 to `last` and accuracies `low` to `high` of so many series are, in pixels."""

    of: int
    last: int
    low: int
    high: int
    width: int
    height: int

    def x(self, iteration: int, number: float) -> float:
        """Of series `number`: they stand a little apart, so that bars do not hide each other."""
        whole = self.width - LEFT - RIGHT
        apart = min(8.0, whole / (1 + self.last) / self.of) if self.last else whole / self.of
        inner = whole - self.of * apart
        place = iteration / self.last if self.last else 0.0
        return LEFT + inner * place + apart * (number + 0.5)

    def y(self, accuracy: float) -> float:
        """From the top; what is beyond the axis is drawn at its end."""
        share = min(1.0, max(0.0, (accuracy - self.low) / (self.high - self.low)))
        return self.height - BOTTOM - share * (self.height - BOTTOM - TOP)


def chart_html(title: str, series: Sequence[Series], last: int, width: int, height: int) -> str:
    """A chart of iterations 0 to `last` with its legend, which says each method's latest accuracy."""
    bounds = _bounds([point for one in series for point in one.points])
    axes = Axes(len(series), last, *bounds, width, height)
    lines = "".join(_drawn(one, axes, number) for number, one in enumerate(series))
    label = escaped(f"{title} over iterations of finetuning")
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    drawn = f'<svg {size} role="img" aria-label="{label}">{_grid(axes)}{lines}</svg>'
    legend = "".join(map(_legend_row, series))
    caption = f"<figcaption>{escaped(title)}</figcaption>"
    return f'<figure class="maft-chart">{caption}{drawn}<table>{legend}</table></figure>'


def _bounds(points: Sequence[Point]) -> tuple[int, int]:
    """Multiples of ten around all points and their bars, within 0 and 100."""
    low = 10 * math.floor(min(point.accuracy - point.error for point in points) / 10)
    high = 10 * math.ceil(max(point.accuracy + point.error for point in points) / 10)
    low, high = max(0, low), min(100, high)
    return (low, high) if low < high else (max(0, high - 10), max(10, high))


def _grid(axes: Axes) -> str:
    """Lines with their accuracies, and the numbers of iterations."""
    right, bottom = axes.width - RIGHT, axes.height - BOTTOM
    parts = []
    for accuracy in range(axes.low, axes.high + 1, 10 if axes.high - axes.low <= 50 else 20):
        y = axes.y(accuracy)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{accuracy}</text>')
    for i in range(0, axes.last + 1, 1 + axes.last // 12):  # more would run into each other
        x = axes.x(i, (axes.of - 1) / 2)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{i}</text>')
    name = "iterations of finetuning"
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{axes.height - 5}" text-anchor="middle">{name}</text>')
    return "".join(parts)


def _drawn(one: Series, axes: Axes, number: int) -> str:
    """A series as line, bars and markers, which say what they are to the pointer."""
    places = [(axes.x(p.iteration, number), axes.y(p.accuracy), p) for p in one.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    parts = [f'<polyline points="{line}" {_dashes(one)}/>'] if len(places) > 1 else []
    for x, y, p in places:
        said = escaped(f"{one.name}, iteration {p.iteration}: {_said(p)}")
        low, high = axes.y(p.accuracy - p.error), axes.y(p.accuracy + p.error)
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
        moved = f'transform="translate({x:.1f} {y:.1f})"'
        parts.append(f"<g {moved}><title>{said}</title>{_marker(one)}</g>")
    return f"<g {_colour(one)}>{''.join(parts)}</g>"


def _legend_row(one: Series) -> str:
    swatch = (
        f'<svg width="30" height="12" viewBox="0 0 30 12" aria-hidden="true"><g {_colour(one)}>'
        f'<path d="M0 6H30" {_dashes(one)}/>'
        f'<g transform="translate(15 6)">{_marker(one)}</g></g></svg>'
    )
    name = f'<th scope="row">{swatch} {escaped(one.name)}</th>'
    return f"<tr>{name}<td>{_said(one.points[-1])}</td></tr>"


def _said(point: Point) -> str:
    return f"{point.accuracy:.1f} ± {point.error:.1f} %"


def _marker(one: Series) -> str:
    hollow = ' fill="none"' if one.variant else ""
    return f'<path class="marker" d="{MARKERS.get(one.marker, MANY_SIDES)}"{hollow}/>'


def _dashes(one: Series) -> str:
    dashes = OTHER_DASHES[one.variant % 4] if one.variant else DASHES.get(one.linestyle, "")
    return f'stroke-dasharray="{dashes}"' if dashes else ""


def _colour(one: Series) -> str:
    colour = "currentColor" if one.color == "#000000" else escaped(one.color)
    return f'class="series" stroke="{colour}" fill="{colour}" style="--of: {colour}"'
