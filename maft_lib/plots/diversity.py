"""Diversity drawn against accuracy."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from maft_lib.arguments import check_columns
from maft_lib.plots.style import STYLE, look, new_axes


def accuracy_against_diversity(
    frame: pd.DataFrame, ax: Axes | None = None, xlabel: str = "embedding dissimilarity"
) -> Axes:
    """Figure 4: accuracy against diversity, the iterations of a method joined and numbered.

    `frame` has `method`, `iteration`, `diversity`, `diversity_error`, `accuracy` and `accuracy_error`
    (percent). Error bars both ways; the number beside a point is its iteration.
    """
    drawn = ("diversity", "diversity_error", "accuracy", "accuracy_error")
    check_columns("frame", frame, ("method", "iteration", *drawn))
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=2.8)
        extent = np.array([np.ptp(frame.diversity), np.ptp(frame.accuracy)]) + 1e-9
        for name, part in frame.groupby("method", sort=False):
            x, y = part.diversity, part.accuracy
            mine = look(name)
            faint: dict[str, Any] = {
                "ecolor": mine["color"],
                "elinewidth": 0.5,
                "alpha": 0.35,
                "capsize": 0,
            }
            ax.errorbar(x, y, xerr=part.diversity_error, yerr=part.accuracy_error, fmt="none", **faint)
            ax.plot(x, y, lw=0.9, **mine)
            points = np.column_stack([x, y]) / extent
            for place, number in enumerate(part.iteration):
                centred: dict[str, Any] = {"ha": "center", "va": "center", "color": mine["color"]}
                ax.annotate(
                    str(number),
                    (x.iloc[place], y.iloc[place]),
                    _away_from_the_line(points, place),
                    textcoords="offset points",
                    weight="bold",
                    fontsize=7,
                    **centred,
                )
        ax.set(xlabel=xlabel, ylabel="accuracy of the debate (%)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def _away_from_the_line(points: np.ndarray, place: int) -> tuple[float, float]:
    """Where the number of a point goes, in typographic points: opposite to its neighbours."""
    steps = [points[k] - points[place] for k in (place - 1, place + 1) if 0 <= k < len(points)]
    away = -sum((step / (np.linalg.norm(step) or 1) for step in steps), np.zeros(2))
    if np.linalg.norm(away) < 0.1:  # on a straight line, or alone: above it
        away = np.array([0.0, 1.0])
    x, y = 8 * away / np.linalg.norm(away)
    return float(x), float(y)
