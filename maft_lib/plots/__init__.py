"""How results are drawn. Functions take finished data frames, return axes and compute nothing.

`ax=None` makes a new figure of print size: 3.3 inches wide (`SINGLE`, one column) or 6.9 (`DOUBLE`).
A method has the same colour, marker and line in every figure, so that figures can be read in grey.
"""

from maft_lib.plots.method import dependence, measured_specialization, overview, trajectories
from maft_lib.plots.results import (
    accuracy_against_diversity,
    accuracy_against_tokens,
    accuracy_bars,
    by_iteration,
    losses,
    training_losses,
    transfer_matrix,
)
from maft_lib.plots.style import (
    DOUBLE,
    LABELS,
    SINGLE,
    STYLE,
    about,
    letter,
    panels,
    save_figure,
)

__all__ = [
    "DOUBLE",
    "LABELS",
    "SINGLE",
    "STYLE",
    "about",
    "accuracy_against_diversity",
    "accuracy_against_tokens",
    "accuracy_bars",
    "by_iteration",
    "dependence",
    "letter",
    "losses",
    "measured_specialization",
    "overview",
    "panels",
    "save_figure",
    "training_losses",
    "trajectories",
    "transfer_matrix",
]
