"""What all figures share: names, colours and markers of methods, print sizes, how a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maft_lib.arguments import as_place, check_able, check_config, check_kind, check_whole
from maft_lib.methods import METHODS
from maft_lib.store.files import replacing

STYLE = Path(__file__).with_name("maft.mplstyle")
SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a paper and both


class Look(NamedTuple):
    """How a method is drawn, everywhere."""

    color: str
    marker: str
    linestyle: str = "-"


LABELS = {
    **{name: method.label for name, method in METHODS.items()},
    "single_agent_ft at once": "Single-agent FT, no debate (M = 1)",
    "generation agents": "Multiagent FT: generation agents",
    "critic agents": "Multiagent FT: critic agents",
}
LOOKS = {
    **{name: Look(m.color, m.marker, m.linestyle) for name, m in METHODS.items()},
    "single_agent_ft at once": Look("#E69F00", "X", ":"),
    "generation agents": Look("#0072B2", "o"),
    "critic agents": Look("#56B4E9", "D", "-."),
}
NAMELESS = Look("#000000", "o")


def look(name: object) -> dict[str, Any]:
    """Colour, marker, line and label of a method or series, as keywords of matplotlib."""
    return {**LOOKS.get(str(name), NAMELESS)._asdict(), "label": LABELS.get(str(name), str(name))}


def panels(rows: int = 1, columns: int = 2, height: float = 2.6, **keywords: Any) -> tuple[Figure, Any]:
    """A new figure of both columns' width with several axes, `plt.subplots` in the style of all."""
    check_whole("rows", rows, 1)
    check_whole("columns", columns, 1)
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

    The caption is kept in both files, where the contact sheet finds it. Raises `ValueError` for a
    folder that is not there and `StoreError` if the disk refuses.
    """
    place = as_place(path)
    drawn: Any = figure.get_figure() if isinstance(figure, Axes) else figure
    check_able("figure", drawn, "savefig", "a figure or its axes")
    check_kind("caption", caption, str)
    undated = {"CreationDate": None, "Creator": None, "Producer": None}
    metadata = {
        "pdf": {**undated, "Subject": caption},
        "png": {"Software": None, "Description": caption},
    }
    paths = [place.with_name(f"{place.name}.{kind}") for kind in metadata]
    for path, (kind, said) in zip(paths, metadata.items()):
        with replacing(path) as new, plt.style.context(STYLE):
            drawn.savefig(new, format=kind, metadata=said)
    if caption:
        print(caption)
    return paths


def about(config: Any, task: str | None = None) -> str:
    """The end of a caption: what its error bars are, and the run that it shows."""
    check_config(config)
    seeds = config.seeds or [config.seed]
    over = f"the mean over {len(seeds)} seeds" if len(seeds) > 1 else "the mean over problems"
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    where = f"{task or config.task}, {config.num_train} train and {config.num_eval} eval problems"
    return f"Error bars: one standard error of {over}. Profile {config.profile}, {where}, {named}."
