"""The method drawn: Figure 2 from a real run's numbers, training losses, specialization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from maft_lib.plots.style import DOUBLE, STYLE, letter, new_axes, panels

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def overview(counts: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """Figure 2: from debates to datasets to finetuned agents, with the sizes of a real run.

    `counts` has one row per agent with the numbers of examples `generation`, `corrected`, `kept` and
    `critic`; `title` says which debates they come from.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes(DOUBLE, 0.35 + 0.95 * len(counts))
        ax.set(xlim=(0, 10), ylim=(-0.1, len(counts) + 0.5))
        ax.axis("off")
        for x, head in ((1.5, title), (5.3, "datasets"), (8.7, "finetuned agents")):
            ax.text(x, len(counts) + 0.2, head, ha="center", weight="bold")
        for row, (_, agent) in enumerate(counts.iterrows()):
            n, y = row + 1, len(counts) - 1 - row
            _box(ax, 0.2, y + 0.15, 2.6, 0.7, f"agent {n}\nrounds 1 to M", "0.92")
            mixture = f"{agent.critic} from {agent.corrected} corrected, {agent.kept} kept"
            for role, data, height, colour in (
                ("generation", f"$D^G_{n}$: {agent.generation}", y + 0.53, "#cfe3f2"),
                ("critic", f"$D^C_{n}$: {mixture}", y + 0.12, "#f8ddca"),
            ):
                _box(ax, 3.7, height, 3.2, 0.34, data, colour)
                _box(ax, 7.6, height, 2.2, 0.34, f"{role} agent {n}", colour)
                for start, end in (((2.85, y + 0.5), 3.65), ((6.95, height + 0.17), 7.55)):
                    arrow = {"arrowstyle": "->", "color": "0.4", "lw": 0.9}
                    ax.annotate("", (end, height + 0.17), start, arrowprops=arrow)
    return ax


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    line: dict = {"edgecolor": "0.4", "lw": 0.8}
    ax.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0.03", facecolor=colour, **line))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def losses(values: Sequence[float], ax: Axes | None = None) -> Axes:
    """Training loss in nats per token against steps, with a running mean over 25 steps."""
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        series = pd.Series(values)
        ax.plot(series.index + 1, series, lw=0.5, alpha=0.35)
        ax.plot(series.index + 1, series.rolling(25, min_periods=1).mean(), color="C0")
        ax.set(xlabel="step", ylabel="loss (nats per token)", yscale="log")
    return ax


def training_losses(curves: Mapping[str, Sequence[float]]) -> Figure:
    """A panel per role, a line per agent: training loss against steps, the mean over a tenth of them.

    `curves` are the losses of agents by name, such as `critic-1`, in nats per token.
    """
    roles = list(dict.fromkeys(name.rsplit("-", 1)[0] for name in curves))
    figure, axes = panels(1, len(roles), 2.2, sharey=True, squeeze=False)
    with plt.style.context(STYLE):
        for ax, role in zip(axes[0], roles):
            names = [name for name in curves if name.rsplit("-", 1)[0] == role]
            for name, dashes in zip(names, cycle(("-", "--", ":", "-."))):
                series = pd.Series(curves[name])
                smooth = series.rolling(max(1, len(series) // 10), min_periods=1).mean()
                ax.plot(series.index + 1, smooth, dashes, label=name)
            ax.set(xlabel=f"step ({role} agents)")
            ax.legend()
        axes[0][0].set(ylabel="loss (nats per token)")
        letter(axes[0])
    return figure


# Appendix G: skills over iterations, what specialization depends on, measured shares


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and line of a topic or series by its number, as keywords of matplotlib."""
    kinds = {"color": COLORS, "marker": "os^Dv*", "linestyle": ("-", "--", "-.", ":")}
    return {name: values[number % len(values)] for name, values in kinds.items()}


def _points(ax: Axes, x: Any, y: Any, error: Any, line: Any, name: str, number: int) -> None:
    """Points with error bars and a line of its own, as one entry of the legend."""
    ax.errorbar(x, y, error, elinewidth=0.8, **{**_look(number), "linestyle": "none"})
    ax.plot(x, line, lw=1, **{**_look(number), "marker": "none"})
    ax.plot([], [], label=name, **_look(number))


def trajectories(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The skills of one model over iterations, a line per topic: `iteration`, `topic`, `skill`."""
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

    `frame` has `series`, `number`, `mean` and `error`, drawn as points with bars either way, and
    `expected`, what a closed form says, drawn as a line. `log` makes the numbers logarithmic.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        for count, (name, part) in enumerate(frame.groupby("series", sort=False)):
            _points(ax, part.number, part["mean"], part.error, part.expected, str(name), count)
        ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
        if not log:
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.legend()
    return ax


def measured_specialization(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What one agent learned from: the measured share of each topic and what the model predicts.

    `frame` has `topic`, `iteration`, `share` with its `error`, drawn as points with bars either way,
    and `predicted`, drawn as a line. Topics are moved apart a little.
    """
    with plt.style.context(STYLE):
        ax = ax or new_axes()
        groups = list(frame.groupby("topic", sort=False))
        for number, (name, part) in enumerate(groups):
            x = part.iteration + 0.09 * (number - (len(groups) - 1) / 2)
            _points(ax, x, part.share, part.error, part.predicted, str(name), number)
        ax.set(xlabel="iterations of finetuning", ylabel="share of agreeing responses", ylim=(0, 1))
        ax.set_xticks(sorted(frame.iteration.unique()))
        ax.legend(title="topic")
    return ax
