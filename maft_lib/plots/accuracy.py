"""Accuracies drawn: over iterations, as bars, against tokens, from task to task."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from maft_lib.arguments import check_columns
from maft_lib.plots.style import DOUBLE, LABELS, STYLE, look, new_axes

NEARLY = 0.2  # of the logarithm: tokens within about a fifth of each other


def by_iteration(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    ylabel: str = "accuracy of the debate (%)",
    series: str = "method",
) -> Axes:
    """Figures 1, 3, 6-11: a quantity against iterations of finetuning, a line per `series`.

    `frame` has the column `series`, `iteration`, `mean` and `error`, which is drawn as a bar either
    way; the caption has to say what it is. Lines are moved apart a little, so that bars do not hide
    each other.
    """
    check_columns("frame", frame, (series, "iteration", "mean", "error"))
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

    `frame` has `method`, `accuracy`, `standard_error` (percent), and may have `label` where a method's
    own name does not say enough, as which task it was trained on. Methods stand from top to bottom.
    """
    check_columns("frame", frame, ("method", "accuracy", "standard_error"))
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=0.5 + 0.28 * len(frame))
        for y, row in enumerate(frame.itertuples()):
            mine = look(row.method)
            ax.barh(y, row.accuracy, xerr=row.standard_error, color=mine["color"], height=0.7)
            beyond = row.accuracy + row.standard_error
            ax.text(beyond + 1.5, y, f"{row.accuracy:.1f}", va="center", fontsize=7)
        names = frame.method.map(lambda name: LABELS.get(name, name))
        labels = names if "label" not in frame else frame.label
        ax.set_yticks(range(len(frame)), labels)
        ax.set(xlabel="accuracy (%)", xlim=(0, min(118, 1.2 * frame.accuracy.max() + 10)))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return ax


def transfer_matrix(matrix: pd.DataFrame, errors: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A square per pair of tasks: trained on (rows), tested on (columns), dark is a high accuracy.

    `matrix` has accuracies and `errors` their standard errors, in percent, with the same labels.
    """
    check_columns("matrix", matrix, ())
    check_columns("errors", errors, matrix.columns)
    if len(errors) != len(matrix):
        raise ValueError(f"errors has {len(errors)} rows, matrix {len(matrix)}: give one each.")
    with plt.style.context(STYLE):
        ax = ax or new_axes(height=2.7)
        ax.imshow(matrix, cmap="Greys", aspect="auto")
        middle = (matrix.min().min() + matrix.max().max()) / 2
        for y, (_, row) in enumerate(matrix.iterrows()):
            for x, value in enumerate(row):
                colour = "white" if value > middle else "black"
                text = f"{value:.0f} ± {errors.iloc[y, x]:.0f}"
                ax.text(x, y, text, ha="center", va="center", color=colour, fontsize=7)
        ax.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=20, ha="right")
        ax.set_yticks(range(matrix.shape[0]), matrix.index)
        ax.set(xlabel="tested on", ylabel="trained on", title="accuracy (%)")
        ax.grid(visible=False)
    return ax


def accuracy_against_tokens(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy of methods against the tokens that they generate to answer one problem.

    `frame` has `method`, `tokens` (per problem), `accuracy` and `standard_error` (percent). Error bars
    are one standard error. The tokens are on a logarithmic axis; methods that spend nearly the same are
    drawn side by side.
    """
    check_columns("frame", frame, ("method", "tokens", "accuracy", "standard_error"))
    if not (frame.tokens > 0).all():
        raise ValueError("tokens of frame are on a logarithmic axis: give numbers above 0.")
    with plt.style.context(STYLE):
        ax = ax or new_axes(DOUBLE, 3.0)
        alike = frame.tokens.map(lambda tokens: round(math.log(tokens) / NEARLY))
        for row in frame.assign(alike=alike).itertuples():
            beside = list(alike[alike == row.alike].index).index(row.Index)
            shift = (beside - (sum(alike == row.alike) - 1) / 2) * 0.06
            x = row.tokens * math.exp(shift)
            style = {**look(row.method), "linestyle": "none", "ms": 5, "lw": 0.9}
            ax.errorbar(x, row.accuracy, yerr=row.standard_error, **style)
        ax.set(xscale="log", xlabel="tokens generated per problem", ylabel="accuracy (%)")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax
