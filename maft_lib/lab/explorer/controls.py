"""The controls of the explorer: what they are called and how they lie. Knows no debates.

Each carries the class `maft-<name>`. Controls live as long as the explorer and are never disabled: one
that went grey under the keyboard's focus would lose it. What has no choice to offer is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import pandas as pd
from pandas.api.types import is_numeric_dtype

from maft_lib.lab.explorer.listing import LEGEND
from maft_lib.lab.explorer.outcomes import OUTCOMES
from maft_lib.lab.keys import own_keys

FILTERS = ("task", "level", "method", "iteration", "seed")  # columns of the index
ANY = ""  # the value of a choice that is not made: for ipywidgets, None would be no option at all
CHANGES = [("any", ANY), ("wrong → right", True), ("right → wrong", False)]
SHORT = {"description_width": "initial"}  # a description takes only the room that it needs
HINT = "words in the question"


class Controls:
    """All controls of one explorer over the debates of an index; `window` holds them."""

    def __init__(self, frame: pd.DataFrame, runs: Sequence[str]):
        self.filters = {name: _choice(name, name, _values(frame[name])) for name in FILTERS}
        happened = [(name.replace("_", " "), name) for name in OUTCOMES if frame[name].any()]
        self.outcome = _choice("outcome", "outcome", [("all", ANY), *happened])
        self.search = _named(
            "search", widgets.Text(description="search", placeholder=HINT, style=SHORT)
        )
        self.clear = _button("clear", "clear filters", "Show all debates again")
        self.count = _named("count", widgets.HTML())
        self.listing = _named("list", widgets.Select(rows=16, tooltip="debates that match"))
        self.previous = _button("previous", "← previous", "The debate before this one in the list")
        self.next = _button("next", "next →", "The debate after this one in the list")
        steps = widgets.IntSlider(description="rounds", min=1, max=2, value=2, style=SHORT)
        self.round = _named("round", steps)
        others = [("nothing", ANY), *((name, number) for number, name in enumerate(runs))]
        self.compare = _choice("compare", "compare with", others)
        self.change = _choice("change", "vote", CHANGES)
        show(self.change, False)
        self.screen = _named("screen", widgets.HTML())
        self.window = self._laid_out()

    def _laid_out(self) -> widgets.VBox:
        """Filters above; the list beside the debate, or above it where there is no room."""
        self.listing.layout = widgets.Layout(width="auto", height="auto")
        self.search.layout = widgets.Layout(width="16rem")
        self.round.layout.width = "16rem"
        shown = [*self.filters.values(), self.outcome, self.search, self.clear]
        legend = widgets.HTML(f'<small style="display:block;line-height:1.4">{LEGEND}</small>')
        beside = widgets.VBox([self.count, self.listing, legend])
        beside.layout = widgets.Layout(flex="1 1 18rem", min_width="0")
        steps = _row(self.previous, self.next, self.round, self.compare, self.change)
        debate = widgets.VBox([steps, self.screen])
        debate.layout = widgets.Layout(flex="4 1 34rem", min_width="0")
        both = _row(beside, debate)
        both.layout.align_items = "flex-start"
        return widgets.VBox([_row(*shown), both, own_keys()])


def chosen(control: Any) -> Any:
    """What a choice is set to; None if it is not made."""
    return None if control.value == ANY else control.value


def show(control: widgets.DOMWidget, shown: bool) -> None:
    """Shows or hides a control, which stays where it is."""
    control.layout.display = None if shown else "none"


def _values(column: pd.Series) -> list[tuple[str, Any]]:
    """All, and each value of a column: numbers in order, names as they come."""
    values = column.dropna().unique().tolist()
    ordered = sorted(values) if is_numeric_dtype(column) else values
    return [("all", ANY), *((str(value), value) for value in ordered)]


def _row(*controls: widgets.Widget) -> widgets.Box:
    layout = widgets.Layout(flex_flow="row wrap", align_items="center")
    return widgets.Box(controls, layout=layout)


def _choice(name: str, label: str, options: Sequence[tuple[str, Any]]) -> Any:
    """A drop-down list, hidden if it offers nothing beside its first option and one other."""
    layout = widgets.Layout(width="auto", max_width="100%")
    made = widgets.Dropdown(description=label, options=options, style=SHORT, layout=layout)
    control = _named(name, made)
    show(control, len(options) > 2)
    return control


def _button(name: str, label: str, hint: str) -> Any:
    layout = widgets.Layout(width="auto")
    return _named(name, widgets.Button(description=label, tooltip=hint, layout=layout))


def _named(name: str, control: Any) -> Any:
    control.add_class(f"maft-{name}")
    return control
