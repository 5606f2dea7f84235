"""Results drawn: accuracies over iterations, as bars, against tokens and diversity; losses; skills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from maft_lib.arguments import as_numbers, check_columns, check_whole
from maft_lib.plots.style import DOUBLE, LABELS, STYLE, letter, look, new_axes, panels

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


def losses(values: Sequence[float], ax: Axes | None = None, window: int = 25) -> Axes:
    """Training loss in nats per token against steps, with a running mean over `window` steps."""
    as_numbers("values", values)
    check_whole("window", window, 1)
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        series = pd.Series(values)
        ax.plot(series.index + 1, series, lw=0.5, alpha=0.35)
        ax.plot(series.index + 1, series.rolling(window, min_periods=1).mean(), color="C0")
        ax.set(xlabel="step", ylabel="loss (nats per token)", yscale="log")
    return ax


def training_losses(curves: Mapping[str, Sequence[float]]) -> Figure:
    """A panel per role, a line per agent: training loss in nats per token against steps, smoothed.

    `curves` are the losses of agents by name, such as `critic-1`. The mean runs over a tenth of the
    steps, since single batches vary more than agents do.
    """
    if not isinstance(curves, Mapping) or not curves:
        raise ValueError("curves holds no losses: give those of one agent at least, by its name.")
    for name, values in curves.items():
        as_numbers(f"curves[{name!r}]", values)
    roles: dict[str, list[str]] = {}
    for name in curves:
        roles.setdefault(name.rsplit("-", 1)[0], []).append(name)
    figure, axes = panels(1, len(roles), 2.2, sharey=True, squeeze=False)
    with plt.style.context(STYLE):
        for ax, (role, names) in zip(axes[0], roles.items()):
            for name, dashes in zip(names, cycle(("-", "--", ":", "-."))):
                series = pd.Series(curves[name])
                smooth = series.rolling(max(1, len(series) // 10), min_periods=1).mean()
                ax.plot(series.index + 1, smooth, dashes, label=name)
            ax.set(xlabel=f"step ({role} agents)")
            ax.legend()
        axes[0][0].set(ylabel="loss (nats per token)")
        letter(axes[0])
    return figure
