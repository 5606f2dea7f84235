"""What all figures share: names, colours and markers of methods, print sizes, how a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maft_lib.config import Config
from maft_lib.methods import METHODS
from maft_lib.store.files import replacing

STYLE = Path(__file__).with_name("maft.mplstyle")
SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a paper and both

LOOKS = {  # label, colour, marker, line
    **{name: (m.label, m.color, m.marker, m.linestyle) for name, m in METHODS.items()},
    "single_agent_ft at once": ("Single-agent FT, no debate (M = 1)", "#E69F00", "X", ":"),
    "generation agents": ("Multiagent FT: generation agents", "#0072B2", "o", "-"),
    "critic agents": ("Multiagent FT: critic agents", "#56B4E9", "D", "-."),
}
LABELS = {name: label for name, (label, *_) in LOOKS.items()}


def look(name: object) -> dict[str, Any]:
    """Label, colour, marker and line of a method or series, as keywords of matplotlib."""
    known = LOOKS.get(str(name), (str(name), "#000000", "o", "-"))
    return dict(zip(("label", "color", "marker", "linestyle"), known))


def panels(rows: int = 1, columns: int = 2, height: float = 2.6, **keywords: Any) -> tuple[Figure, Any]:
    """A new figure of both columns' width with several axes, `plt.subplots` in the style of all."""
    with plt.style.context(STYLE):
        return plt.subplots(rows, columns, figsize=(DOUBLE, height), **keywords)


def new_axes(width: float = SINGLE, height: float = 2.5) -> Axes:
    """The axes of a new figure of print size."""
    return plt.subplots(figsize=(width, height))[1]


def letter(axes: Any) -> None:
    """(a), (b), ... above the axes of a figure, as captions name them."""
    for name, ax in zip("abcdefgh", np.ravel(axes)):
        ax.set_title(f"({name})", loc="left", fontsize=8)


def save_figure(figure: Figure | Axes, path: str | Path, caption: str = "") -> list[Path]:
    """Writes `path`.pdf and `path`.png, the same bytes for the same figure; prints the caption.

    The caption is kept in both files, where the contact sheet finds it.
    """
    drawn: Any = figure.get_figure() if isinstance(figure, Axes) else figure
    undated = {"CreationDate": None, "Creator": None, "Producer": None}
    pdf, png = {**undated, "Subject": caption}, {"Software": None, "Description": caption}
    paths = [Path(f"{path}.pdf"), Path(f"{path}.png")]
    for place, said in zip(paths, (pdf, png)):
        with replacing(place) as new, plt.style.context(STYLE):
            drawn.savefig(new, format=place.suffix[1:], metadata=said)
    if caption:
        print(caption)
    return paths


def about(config: Config, task: str | None = None) -> str:
    """The end of a caption: what its error bars are, and the run that it shows."""
    seeds = config.seeds or [config.seed]
    over = f"the mean over {len(seeds)} seeds" if len(seeds) > 1 else "the mean over problems"
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    where = f"{task or config.task}, {config.num_train} train and {config.num_eval} eval problems"
    return f"Error bars: one standard error of {over}. Profile {config.profile}, {where}, {named}."
