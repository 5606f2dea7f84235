"""The method drawn: Figure 2 from a real run's numbers, and how a model's training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from maft_lib.arguments import as_numbers, check_columns, check_whole
from maft_lib.plots.style import DOUBLE, STYLE, letter, new_axes, panels


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
