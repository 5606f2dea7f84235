"""How results are drawn. Functions take finished data frames, return axes and compute nothing.

`ax=None` makes a new figure of print size: 3.3 inches wide (`SINGLE`, one column) or 6.9 (`DOUBLE`).
A method has the same colour, marker and line in every figure, so that figures can be read in grey.
"""

from maft_lib.plots.method import (  # noqa: F401
    dependence,
    losses,
    measured_specialization,
    overview,
    training_losses,
    trajectories,
)
from maft_lib.plots.results import (  # noqa: F401
    accuracy_against_diversity,
    accuracy_against_tokens,
    accuracy_bars,
    by_iteration,
    transfer_matrix,
)
from maft_lib.plots.style import (  # noqa: F401
    DOUBLE,
    LABELS,
    SINGLE,
    STYLE,
    about,
    letter,
    panels,
    save_figure,
)
