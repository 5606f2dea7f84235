"""Diversity drawn against accuracy."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from maft_lib.plots.style import STYLE, look, new_axes

# Behind a number, so that no line runs through it.
PAPER: dict[str, Any] = {
    "bbox": {"boxstyle": "round,pad=0.08", "fc": "white", "ec": "none", "alpha": 0.75}
}


def accuracy_against_diversity(
    frame: pd.DataFrame, ax: Axes | None = None, xlabel: str = "embedding dissimilarity"
) -> Axes:
    """Figure 4: accuracy against diversity, the iterations of a method joined and numbered.

    `frame` has `method`, `iteration`, `diversity`, `diversity_error`, `accuracy` and `accuracy_error`
    (percent). Error bars both ways; the number beside a point is its iteration.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=2.8)
        for order, (name, part) in enumerate(frame.groupby("method", sort=False)):
            side = (1, -1)[order % 2]  # numbers of two methods on two sides
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
            for number, place in zip(part.iteration, zip(x, y)):
                height = 4 if number % 2 == 0 else -9  # neighbours are often close
                beside: dict[str, Any] = {
                    "xytext": (4 * side, height),
                    "textcoords": "offset points",
                    "ha": "left" if side > 0 else "right",
                }
                ax.annotate(
                    str(number),
                    place,
                    color=mine["color"],
                    weight="bold",
                    fontsize=7,
                    **beside,
                    **PAPER,
                )
        ax.set(xlabel=xlabel, ylabel="accuracy of the debate (%)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax
