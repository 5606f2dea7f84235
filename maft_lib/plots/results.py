"""Results drawn: accuracies over iterations, as bars, from task to task, against tokens, diversity."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from maft_lib.plots.style import DOUBLE, STYLE, look, new_axes

NEARLY = 0.2  # of the logarithm: tokens within about a fifth of each other


def by_iteration(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    ylabel: str = "accuracy of the debate (%)",
    series: str = "method",
) -> Axes:
    """Figures 1, 3, 6-11: a quantity against iterations of finetuning, a line per `series`.

    `frame` has the column `series`, `iteration`, `mean` and `error`, drawn as a bar either way. Lines
    are moved apart a little.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        groups = list(frame.groupby(series, sort=False))
        for number, (name, part) in enumerate(groups):
            x = part.iteration + 0.07 * (number - (len(groups) - 1) / 2)
            ax.errorbar(x, part["mean"], yerr=part.error, elinewidth=0.8, **look(name))
        ax.set(xlabel="iterations of finetuning", ylabel=ylabel)
        ax.set_xticks(sorted(frame.iteration.unique()))
        ax.legend()
    return ax


def accuracy_bars(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Figures 5, 12, 13: a bar per method with its standard error and its accuracy as a number.

    `frame` has `method`, `accuracy`, `standard_error` (percent), and may have a `label` of its own.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=0.5 + 0.28 * len(frame))
        looks = [look(name) for name in frame.method]
        for y, (row, mine) in enumerate(zip(frame.itertuples(), looks)):
            ax.barh(y, row.accuracy, xerr=row.standard_error, color=mine["color"], height=0.7)
            beyond = row.accuracy + row.standard_error
            ax.text(beyond + 1.5, y, f"{row.accuracy:.1f}", va="center", fontsize=7)
        labels = frame.label if "label" in frame else [mine["label"] for mine in looks]
        ax.set_yticks(range(len(frame)), labels)
        ax.set(xlabel="accuracy (%)", xlim=(0, min(118, 1.2 * frame.accuracy.max() + 10)))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return ax


def transfer_matrix(matrix: pd.DataFrame, errors: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A square per pair of tasks: trained on (rows), tested on (columns), dark is a high accuracy.

    `matrix` has accuracies and `errors` their standard errors, in percent, with the same labels.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=2.7)
        ax.imshow(matrix, cmap="Greys", aspect="auto")
        middle = (matrix.min().min() + matrix.max().max()) / 2
        for (y, x), value in np.ndenumerate(matrix):
            colour, text = (
                "white" if value > middle else "black",
                f"{value:.0f} ± {errors.iloc[y, x]:.0f}",
            )
            ax.text(x, y, text, ha="center", va="center", color=colour, fontsize=7)
        ax.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=20, ha="right")
        ax.set_yticks(range(matrix.shape[0]), matrix.index)
        ax.set(xlabel="tested on", ylabel="trained on", title="accuracy (%)")
        ax.grid(visible=False)
    return ax


def accuracy_against_tokens(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy of methods against the tokens that they generate to answer one problem.

    `frame` has `method`, `tokens` (per problem), `accuracy` and `standard_error` (percent). The tokens
    are on a logarithmic axis; methods that spend nearly the same are drawn side by side.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes(DOUBLE, 3.0)
        alike = frame.groupby(frame.tokens.map(lambda num: round(math.log(num) / NEARLY))).tokens
        shift = alike.cumcount() - (alike.transform("size") - 1) / 2
        for row, x in zip(frame.itertuples(), frame.tokens * np.exp(0.06 * shift)):
            style = {**look(row.method), "linestyle": "none", "ms": 5, "lw": 0.9}
            ax.errorbar(x, row.accuracy, yerr=row.standard_error, **style)
        ax.set(xscale="log", xlabel="tokens generated per problem", ylabel="accuracy (%)")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def accuracy_against_diversity(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Figure 4: accuracy against diversity, the iterations of a method joined and numbered.

    `frame` has `method`, `iteration`, `diversity`, `diversity_error`, `accuracy` and `accuracy_error`
    (percent). The number beside a point is its iteration.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=2.8)
        extent = np.array([np.ptp(frame.diversity), np.ptp(frame.accuracy)]) + 1e-9
        for name, part in frame.groupby("method", sort=False):
            mine, points = look(name), part[["diversity", "accuracy"]].to_numpy()
            errors, (x, y) = (part.accuracy_error, part.diversity_error), points.T
            faint: dict = {"elinewidth": 0.5, "alpha": 0.35, "capsize": 0, "ecolor": mine["color"]}
            ax.errorbar(x, y, *errors, fmt="none", **faint)
            ax.plot(x, y, lw=0.9, **mine)
            bold: dict = {"weight": "bold", "fontsize": 7, "color": mine["color"]}
            for place, number in enumerate(part.iteration):
                away = _away_from_the_line(points / extent, place)
                at = {"xy": points[place], "xytext": away, "textcoords": "offset points"}
                ax.annotate(str(number), **at, ha="center", va="center", **bold)
        ax.set(xlabel="embedding dissimilarity", ylabel="accuracy of the debate (%)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def _away_from_the_line(points: np.ndarray, place: int) -> np.ndarray:
    """Where the number of a point goes, in typographic points: opposite to its neighbours."""
    steps = [points[k] - points[place] for k in (place - 1, place + 1) if 0 <= k < len(points)]
    away = -sum((step / (np.linalg.norm(step) or 1) for step in steps), np.zeros(2))
    if np.linalg.norm(away) < 0.1:  # on a straight line, or alone: above it
        away = np.array([0.0, 1.0])
    return 8 * away / np.linalg.norm(away)
