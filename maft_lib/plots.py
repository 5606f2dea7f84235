"""How results are drawn. Functions take finished data frames, return axes and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

STYLE = Path(__file__).with_name("maft.mplstyle")

LABELS = {
    "base": "Base",
    "majority": "Majority",
    "debate": "Debate",
    "star": "STaR",
    "majority_ft": "Majority FT",
    "single_agent_ft": "Single-agent FT",
    "single_agent_ft_wo_debate": "Single-agent FT w/o debate",
    "single_agent_ft_hot": "Single-agent FT, temperature 2",
    "multiagent_ft": "Multiagent FT (ours)",
    "multiagent_ft_wo_summary": "Multiagent FT w/o summary",
    "multiagent_ft_wo_critic": "Multiagent FT w/o critic",
    "multiagent_ft_lora": "Multiagent FT, LoRA",
    "multiagent_ft_dpo": "Multiagent FT, DPO critics",
    "cooperative": "Cooperative (base)",
    "cooperative_ft": "Cooperative (FT)",
    "unique_id": "Unique ID",
    "no_interaction": "No interaction",
    "vote_equal_budget": "Vote at equal budget",
    "distilled_society": "Distilled society",
}
NEARLY = 0.2  # of the logarithm: tokens within about a fifth of each other
MARKERS = {"multiagent_ft": "o", "single_agent_ft": "s", "single_agent_ft_hot": "^"}


def accuracy_by_iteration(
    frame: pd.DataFrame, ax: Axes | None = None, ylabel: str = "accuracy of the debate (%)"
) -> Axes:
    """Figure 1: accuracy against iterations of finetuning, one line a method, with error bands.

    `frame` is that of `metrics.accuracy_over_seeds`: `method`, `iteration`, `mean`, `error` (both in
    percent). The caption has to say what the error is.
    """
    with plt.style.context(STYLE):
        ax = ax or plt.subplots()[1]
        for method, part in frame.groupby("method", sort=False):
            x, mean, error = part.iteration, part["mean"], part.error
            marker = MARKERS.get(str(method), "o")
            (line,) = ax.plot(x, mean, marker=marker, label=LABELS.get(str(method), str(method)))
            ax.fill_between(x, mean - error, mean + error, color=line.get_color(), alpha=0.18, lw=0)
        ax.set(xlabel="iterations of finetuning", ylabel=ylabel)
        ax.set_xticks(sorted(frame.iteration.unique()))
        ax.legend()
    return ax


def accuracy_against_tokens(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy of methods against the tokens that they generate to answer one problem.

    `frame` has `method`, `tokens` (per problem), `accuracy` and `standard_error` (percent). Error bars
    are one standard error. The tokens are on a logarithmic axis; methods that spend nearly the same are
    drawn side by side.
    """
    with plt.style.context(STYLE):
        ax = ax or plt.subplots(figsize=(7.2, 3.6))[1]
        alike = frame.tokens.map(lambda tokens: round(math.log(tokens) / NEARLY))
        for number, row in enumerate(frame.assign(alike=alike).itertuples()):
            beside = list(alike[alike == row.alike].index).index(row.Index)
            shift = (beside - (sum(alike == row.alike) - 1) / 2) * 0.06
            label = LABELS.get(str(row.method), str(row.method))
            style: dict[str, Any] = {
                "fmt": "osD^vP*Xhd"[number % 10],
                "color": f"C{number % 6}",
                "ms": 5,
                "label": label,
            }
            x = row.tokens * math.exp(shift)
            ax.errorbar(x, row.accuracy, yerr=row.standard_error, capsize=2, lw=0.9, **style)
        ax.set(xscale="log", xlabel="tokens generated per problem", ylabel="accuracy (%)")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def overview(counts: pd.DataFrame, title: str, ax: Axes | None = None) -> Axes:
    """Figure 2: from debates to datasets to finetuned agents, with the sizes of a real run.

    `counts` has one row per agent with the numbers of examples `generation`, `corrected`, `kept` and
    `critic`; `title` says which debates they come from.
    """
    with plt.style.context(STYLE):
        ax = ax or plt.subplots(figsize=(7.2, 3.6))[1]
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
    with plt.style.context(STYLE):
        ax = ax or plt.subplots()[1]
        series = pd.Series(values)
        ax.plot(series.index + 1, series, lw=0.5, alpha=0.35)
        ax.plot(series.index + 1, series.rolling(window, min_periods=1).mean(), color="C0")
        ax.set(xlabel="step", ylabel="loss (nats per token)", yscale="log")
    return ax


def save_figure(figure: Figure | Axes, path: Path) -> list[Path]:
    """Writes `path`.pdf and `path`.png, the same bytes for the same figure."""
    drawn: Any = figure.get_figure() if isinstance(figure, Axes) else figure
    paths = [path.with_suffix(".pdf"), path.with_suffix(".png")]
    with plt.style.context(STYLE):
        drawn.savefig(paths[0], metadata={"CreationDate": None, "Creator": None, "Producer": None})
        drawn.savefig(paths[1], metadata={"Software": None})
    return paths
