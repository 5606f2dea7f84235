"""The method drawn: Figure 2 from a real run's numbers, and the specialization of Appendix G."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from maft_lib.arguments import check_columns
from maft_lib.plots.style import DOUBLE, STYLE, new_axes


def overview(counts: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """Figure 2: from debates to datasets to finetuned agents, with the sizes of a real run.

    `counts` has one row per agent with the numbers of examples `generation`, `corrected`, `kept` and
    `critic`; `title` says which debates they come from.
    """
    check_columns("counts", counts, ("generation", "corrected", "kept", "critic"))
    with plt.style.context(STYLE):
        ax = ax or new_axes(DOUBLE, 0.35 + 0.95 * len(counts))
        ax.set(xlim=(0, 10), ylim=(-0.1, len(counts) + 0.5))
        ax.axis("off")
        for x, head in ((1.5, title), (5.3, "datasets"), (8.7, "finetuned agents")):
            ax.text(x, len(counts) + 0.2, head, ha="center", weight="bold")
        for row, (_, agent) in enumerate(counts.iterrows()):
            y = len(counts) - 1 - row
            _box(ax, 0.2, y + 0.15, 2.6, 0.7, f"agent {row + 1}\nrounds 1 to M", "0.92")
            _box(ax, 3.7, y + 0.53, 3.2, 0.34, f"$D^G_{row + 1}$: {agent.generation}", "#cfe3f2")
            mixture = f"{agent.corrected} corrected, {agent.kept} kept"
            text = f"$D^C_{row + 1}$: {agent.critic} from {mixture}"
            _box(ax, 3.7, y + 0.12, 3.2, 0.34, text, "#f8ddca")
            _box(ax, 7.6, y + 0.53, 2.2, 0.34, f"generation agent {row + 1}", "#cfe3f2")
            _box(ax, 7.6, y + 0.12, 2.2, 0.34, f"critic agent {row + 1}", "#f8ddca")
            for height in (y + 0.7, y + 0.29):
                _arrow(ax, 2.85, y + 0.5, 3.65, height)
                _arrow(ax, 6.95, height, 7.55, height)
    return ax


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="0.4", lw=0.8
    )
    ax.add_patch(shape)
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def _arrow(ax: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
    ax.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "0.4", "lw": 0.9})


COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "os^Dv*"
LINES = ("-", "--", "-.", ":")


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and line of a topic or series by its number, as keywords of matplotlib."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def _points(
    ax: Axes,
    x: pd.Series,
    y: pd.Series,
    error: pd.Series,
    line: pd.Series | None,
    name: str,
    look: dict,
) -> None:
    """Points with error bars and, if there is one, a line of its own; one entry of the legend."""
    points = {**look, "linestyle": "none" if line is not None else look["linestyle"]}
    ax.errorbar(x, y, error, elinewidth=0.8, **points)
    if line is not None:
        ax.plot(x, line, lw=1, **{**look, "marker": "none"})
    ax.plot([], [], label=name, **look)


def trajectories(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The skills of one model over iterations, a line per topic.

    `frame` has `iteration`, `topic` and `skill` (0 to 1).
    """
    check_columns("frame", frame, ("iteration", "topic", "skill"))
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        for number, (name, part) in enumerate(frame.groupby("topic", sort=False)):
            every = max(1, len(part) // 8)
            ax.plot(part.iteration, part.skill, markevery=every, label=str(name), **_look(number))
        ax.set(xlabel="iteration", ylabel="skill", ylim=(-0.03, 1.03))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.legend(title="topic")
    return ax


def dependence(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    xlabel: str = "number of models",
    ylabel: str = "topics covered",
    log: bool = False,
) -> Axes:
    """A simulated quantity against the number of models or questions, a colour per `series`.

    `frame` has `series`, `number`, `mean` and `error`, drawn as points with bars either way, and may
    have `expected`, what a closed form says, drawn as a line. `log` makes the numbers logarithmic.
    """
    check_columns("frame", frame, ("series", "number", "mean", "error"))
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        for count, (name, part) in enumerate(frame.groupby("series", sort=False)):
            expected = part.expected if "expected" in frame else None
            _points(ax, part.number, part["mean"], part.error, expected, str(name), _look(count))
        ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
        if not log:
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.legend()
    return ax


def measured_specialization(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What one agent learned from: the measured share of each topic and what the model predicts.

    `frame` has `topic`, `iteration`, `share` with its `error`, drawn as points with bars either way,
    and `predicted`, drawn as a line. Topics are moved apart a little, so that bars do not hide each
    other.
    """
    check_columns("frame", frame, ("topic", "iteration", "share", "error", "predicted"))
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        groups = list(frame.groupby("topic", sort=False))
        for number, (name, part) in enumerate(groups):
            x = part.iteration + 0.09 * (number - (len(groups) - 1) / 2)
            _points(ax, x, part.share, part.error, part.predicted, str(name), _look(number))
        ax.set(xlabel="iterations of finetuning", ylabel="share of agreeing responses", ylim=(0, 1))
        ax.set_xticks(sorted(frame.iteration.unique()))
        ax.legend(title="topic")
    return ax
