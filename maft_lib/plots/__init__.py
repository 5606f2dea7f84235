"""How results are drawn. Functions take finished data frames, return axes and compute nothing.

`ax=None` makes a new figure of print size: 3.3 inches wide (`SINGLE`, one column) or 6.9 (`DOUBLE`).
A method has the same colour, marker and line in every figure, so that figures can be read in grey.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from maft_lib import methods
from maft_lib.config import Config
from maft_lib.store.files import replacing

STYLE = Path(__file__).with_name("maft.mplstyle")
SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a paper and both

SERIES = {  # label, colour, marker and line of what is no method
    "single_agent_ft at once": ("Single-agent FT, no debate (M = 1)", "#E69F00", "X", ":"),
    "generation agents": ("Multiagent FT: generation agents", "#0072B2", "o", "-"),
    "critic agents": ("Multiagent FT: critic agents", "#56B4E9", "D", "-."),
}
# By method, with those that a notebook declares, and by other series
LABELS = ChainMap({name: label for name, (label, *_) in SERIES.items()}, methods.LABELS)


def look(name: object, number: int = 0) -> dict[str, Any]:
    """Label, colour, marker and line of a method, or of another series by its number."""
    parts, method = ("label", "color", "marker", "linestyle"), methods.METHODS.get(str(name))
    if method:
        return {part: getattr(method, part) for part in parts}
    other = (str(name), f"C{number % 6}", "os^Dv*"[number % 6], ("-", "--", "-.", ":")[number % 4])
    return dict(zip(parts, SERIES.get(str(name), other)))


@plt.style.context(STYLE)
def panels(rows: int = 1, columns: int = 2, height: float = 2.6, **keywords: Any) -> tuple[Figure, Any]:
    """A new figure of both columns' width with several axes, `plt.subplots` in the style of all."""
    return plt.subplots(rows, columns, figsize=(DOUBLE, height), **keywords)


def _new_axes(width: float = SINGLE, height: float = 2.5) -> Axes:
    return plt.subplots(figsize=(width, height))[1]


def letter(axes: Any, *titles: str) -> None:
    """(a), (b), ... above the axes of a figure, as captions name them, with what each shows."""
    for name, ax, title in zip("abcdefgh", np.ravel(axes), [*titles, *[""] * np.size(axes)]):
        ax.set_title(f"({name}) {title}", loc="left", fontsize=8)


@plt.style.context(STYLE)
def save_figure(figure: Figure | Axes, path: str | Path, caption: str = "") -> list[Path]:
    """Writes `path`.pdf and `path`.png, the same bytes for the same figure; prints the caption.

    The caption is kept in both files, where the contact sheet finds it.
    """
    drawn: Any = figure.get_figure() if isinstance(figure, Axes) else figure
    undated = {"CreationDate": None, "Creator": None, "Producer": None}
    said = {"pdf": {**undated, "Subject": caption}, "png": {"Software": None, "Description": caption}}
    for kind, metadata in said.items():
        with replacing(Path(f"{path}.{kind}")) as new:
            drawn.savefig(new, format=kind, metadata=metadata)
    if caption:
        print(caption)
    return [Path(f"{path}.{kind}") for kind in said]


def about(config: Config, task: str | None = None) -> str:
    """The end of a caption: what its error bars are, and the run that it shows."""
    seeds = config.seeds or [config.seed]
    over = f"the mean over {len(seeds)} seeds" if len(seeds) > 1 else "the mean over problems"
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    num = config.num_problems("eval", task)
    where = f"{task or config.task}, {config.num_train} train and {num} eval problems"
    return f"Error bars: one standard error of {over}. Profile {config.profile}, {where}, {named}."


@plt.style.context(STYLE)
def by_iteration(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    ylabel: str = "accuracy of the debate (%)",
    series: str = "method",
    x: str = "iteration",
    xlabel: str = "iterations of finetuning",
    apart: float = 0.07,
    levels: Mapping[str, float] | None = None,
) -> Axes:
    """Figures 1, 3, 6-11 and those of Appendix G: a quantity against iterations, a line per `series`.

    `frame` has the columns `series`, `x`, `mean` and, where known, `error` and `expected`, what a model
    says: then it is the line, and the means are points. Lines are moved `apart` a little. `levels` are
    horizontal lines across all iterations, by method or other series.
    """
    ax = ax or _new_axes()
    groups = list(frame.groupby(series, sort=False))
    for number, (name, part) in enumerate(groups):
        places = part[x] + apart * (number - (len(groups) - 1) / 2)
        mine = {**look(name, number), "markevery": max(1, len(part) // 8)}
        points = {**mine, "linestyle": "none", "label": None} if "expected" in part else mine
        ax.errorbar(places, part["mean"], part.get("error"), elinewidth=0.8, **points)
        if "expected" in part:
            ax.plot(places, part.expected, lw=1, **{**mine, "marker": "none", "label": None})
            ax.plot([], [], **mine)  # both as one entry of the legend
    for number, (name, level) in enumerate((levels or {}).items(), start=len(groups)):
        mine = {**look(name, number), "marker": "none"}
        ax.axhline(level, lw=0.9, alpha=0.8, **mine)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.legend()
    return ax


@plt.style.context(STYLE)
def legend_below(axes: Any) -> None:
    """One legend for all axes of a figure, below them, where it covers no line."""
    entries: dict[str, Any] = {}
    for ax in np.ravel(axes):
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels())))
        ax.get_legend().remove()
    figure = np.ravel(axes)[0].figure
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=min(3, len(entries)))


@plt.style.context(STYLE)
def losses(curves: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """Training loss against steps, a line per agent: the mean over a tenth of the steps."""
    ax = ax or _new_axes()
    for (name, values), dashes in zip(curves.items(), cycle(("-", "--", ":", "-."))):
        series = pd.Series(values, range(1, len(values) + 1))
        smooth = series.rolling(max(1, len(series) // 10), min_periods=1).mean()
        ax.plot(smooth.index, smooth, dashes, label=name)
    ax.set(xlabel="step", ylabel="loss (nats per token)")
    ax.legend()
    return ax


@plt.style.context(STYLE)
def overview(sizes: pd.DataFrame, num_debates: int) -> Axes:
    """Figure 2: from debates to datasets to finetuned agents, with the sizes of a real run.

    `sizes` has a row per agent, with the numbers of examples in its `AgentData`. An answer that agrees
    with the vote counts as right.
    """
    ax, num = _new_axes(DOUBLE, 0.75 + 0.8 * len(sizes)), len(sizes)
    middle = num / 2
    ax.set(xlim=(0, 13.2), ylim=(-0.3, num + 0.75))
    ax.axis("off")
    heads = {0.55: "debate", 2.5: "first answers", 4.75: "last answers", 6.6: "majority", 9: "datasets"}
    for x, head in {**heads, 12: "finetuning"}.items():
        ax.text(x, num + 0.45, head, ha="center", weight="bold", fontsize=8)
    _box(ax, 0.05, middle - 0.3, 1, 0.6, f"{num_debates}\nproblems\n$x$", "white")
    _box(ax, 6.15, middle - 0.3, 0.9, 0.6, "right is\nthe vote\n$\\hat{y}$", "white")
    for n, agent in enumerate(sizes.itertuples(), start=1):
        y, first, last = num - n, agent.generation, agent.corrected + agent.kept
        said = [f"{right} right, {num_debates - right} wrong" for right in (first, last)]
        _box(ax, 1.6, y + 0.2, 1.8, 0.6, f"generation agent {n}\n{said[0]}", GENERATION)
        _box(ax, 3.9, y + 0.2, 1.7, 0.6, f"critic agent {n}\n{said[1]}", CRITIC)
        mixed = f"$D^C_{n}$: {agent.critic} from {agent.corrected} corrected, {agent.kept} kept"
        for role, text, height, colour in (
            ("generation", f"$D^G_{n}$: {first} right first answers", y + 0.54, GENERATION),
            ("critic", mixed, y + 0.1, CRITIC),
        ):
            _box(ax, 7.4, height, 3.2, 0.34, text, colour)
            _box(ax, 11.2, height, 1.6, 0.34, f"{role} {n}", colour)
            _arrow(ax, (10.7, height + 0.17), (11.15, height + 0.17))
        _arrow(ax, (1.1, middle), (1.55, y + 0.5))
        _arrow(ax, (5.65, y + 0.5), (6.1, middle))
        _arrow(ax, (7.1, middle), (7.3, y + 0.5))
        for listener in range(num):  # the others' answers, summarized
            if listener != y:
                _arrow(ax, (3.45, y + 0.5), (3.85, listener + 0.5), color="0.7")
        _arrow(ax, (3.45, y + 0.5), (3.85, y + 0.5), color="0.3")
    ax.text(3.65, -0.2, "and a summary of what the others said", ha="center", fontsize=7, color="0.4")
    return ax


GENERATION, CRITIC = "#cfe3f2", "#f8ddca"


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    ax.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0.03", fc=colour, ec="0.4", lw=0.8))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=6.5)


def _arrow(ax: Axes, start: tuple, end: tuple, color: str = "0.4") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": color, "lw": 0.8})


@plt.style.context(STYLE)
def accuracy_bars(frame: pd.DataFrame) -> Axes:
    """Figures 5, 12, 13: a bar per method with its standard error and its accuracy as a number.

    `frame` has `method`, `accuracy`, `standard_error` (percent) and `label`; a bar that is `zero_shot`
    is hatched.
    """
    ax = _new_axes(height=0.5 + 0.28 * len(frame))
    colors = [look(name)["color"] for name in frame.method]
    bars = ax.barh(range(len(frame)), frame.accuracy, xerr=frame.standard_error, color=colors)
    for bar, hatched in zip(bars, frame.get("zero_shot", [])):
        bar.set(hatch="///" if hatched else None, edgecolor="white")
    for y, row in enumerate(frame.itertuples()):
        beyond = row.accuracy + row.standard_error
        ax.text(beyond + 1.5, y, f"{row.accuracy:.1f}", va="center", fontsize=7)
    ax.set_yticks(range(len(frame)), frame.label)
    ax.set(xlabel="accuracy (%)", xlim=(0, min(118, 1.2 * frame.accuracy.max() + 10)))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


@plt.style.context(STYLE)
def transfer_matrix(matrix: pd.DataFrame, errors: pd.DataFrame) -> Axes:
    """Accuracies and their standard errors (percent) by the tasks trained on (rows) and tested on.

    The colour of a cell is its gain over the first row, the untrained agents.
    """
    ax, gains = _new_axes(1.3 * SINGLE, 2.7), matrix - matrix.iloc[0]
    most = float(np.abs(gains.to_numpy()).max()) or 1.0
    image = ax.imshow(gains, cmap="PuOr", vmin=-1.6 * most, vmax=1.6 * most, aspect="auto")
    for (y, x), value in np.ndenumerate(matrix):
        ax.text(x, y, f"{value:.0f} ± {errors.iloc[y, x]:.0f}", ha="center", va="center", fontsize=7)
    ax.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=20, ha="right")
    ax.set_yticks(range(matrix.shape[0]), matrix.index)
    ax.set(xlabel="tested on", ylabel="trained on", title="accuracy (%)")
    ax.grid(visible=False)
    bar = ax.figure.colorbar(image, ax=ax, label="gain over untrained agents (points)")
    bar.ax.set_ylim(-most, most)
    return ax


@plt.style.context(STYLE)
def accuracy_beside_tokens(frame: pd.DataFrame) -> np.ndarray:
    """Accuracy of methods (a), and the tokens that they generate to answer one problem (b).

    `frame` has `method`, `tokens`, `accuracy` and `standard_error` (percent).
    """
    _, axes = plt.subplots(1, 2, figsize=(DOUBLE, 0.7 + 0.22 * len(frame)), sharey=True)
    for y, row in enumerate(frame.itertuples()):
        style = {**look(row.method), "linestyle": "none", "ms": 5}
        axes[0].errorbar(row.accuracy, y, xerr=row.standard_error, **style)
        axes[1].barh(y, row.tokens, color=style["color"], height=0.6)
        axes[1].text(row.tokens, y, f" {row.tokens:,.0f}", va="center", fontsize=7)
    axes[0].set_yticks(range(len(frame)), [LABELS.get(name, name) for name in frame.method])
    axes[0].set(xlabel="accuracy (%)")
    axes[1].set(xlabel="tokens generated per problem", xlim=(0, 1.15 * frame.tokens.max()))
    axes[0].invert_yaxis()
    letter(axes, "accuracy", "cost of an answer")
    return axes


@plt.style.context(STYLE)
def accuracy_against_diversity(frame: pd.DataFrame) -> Axes:
    """Figure 4: accuracy against diversity, the iterations of a method joined and numbered.

    `frame` has `method`, `iteration`, `diversity`, `accuracy` and both with `_error`.
    """
    ax = _new_axes(height=2.8)
    extent = np.array([np.ptp(frame.diversity), np.ptp(frame.accuracy)]) + 1e-9
    for name, part in frame.groupby("method", sort=False):
        mine, points = look(name), part[["diversity", "accuracy"]].to_numpy()
        (x, y), color = points.T, mine["color"]
        faint: dict = {"elinewidth": 0.5, "alpha": 0.35, "capsize": 0, "ecolor": color}
        ax.errorbar(x, y, part.accuracy_error, part.diversity_error, fmt="none", **faint)
        ax.plot(x, y, lw=0.9, **mine)
        bold: dict = {"weight": "bold", "fontsize": 7, "color": color, "ha": "center", "va": "center"}
        for place, number in enumerate(part.iteration):
            away = tuple(_away_from_the_line(points / extent, place))
            ax.annotate(str(number), points[place], away, textcoords="offset points", **bold)
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
