"""The explorer's window: reacts to its controls, and shows the debate that they select.

Knows the index (`selection`) and how debates are drawn (`screen`); runs no debate and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets
import numpy as np

from maft_lib.debate import Debate
from maft_lib.lab.explorer import selection
from maft_lib.lab.explorer.controls import ANY, Controls, chosen, show
from maft_lib.lab.explorer.listing import lines
from maft_lib.lab.explorer.outcomes import OUTCOMES
from maft_lib.lab.explorer.screen import Pane, notice_html, screen_html

PAGE = 1_000  # debates that the list holds at a time
NO_MATCH = "No debate matches these filters: clear them, or change one."
NOT_ASKED = "This run was not asked the problem."
SAME_RUN = "This is the run on screen already: choose another one to compare with."


class DebateExplorer(widgets.VBox):
    """Finished debates to filter, leaf through and compare, in JupyterLab.

    Takes a list of Debates, a `Result` (its debates on the eval problems after every iteration), or a
    list or dict of Results; a dict's keys stand where the methods do, and its values may be lists of
    Debates. All of it works by Tab and the arrow keys. Where there is no kernel, the HTML of the debate
    that was selected stands in the notebook.

    `frame` is the index, one row per debate (`selection.index_frame`), `debates` the debates in that
    order. Raises `ValueError` if there is no debate.
    """

    def __init__(self, debates_or_results: selection.Explorable):
        found = selection.entries(debates_or_results)
        self.debates = [entry.debate for entry in found]
        self.frame = selection.index_frame(found)
        self.runs = selection.runs_of(self.frame)
        self._short_lines, self._long_lines = lines(self.frame), lines(self.frame, self.runs)
        self._rows, self._position, self._listed = np.arange(0), 0, slice(0, 0)
        self._rounds: int | None = None  # how many are shown; None: all
        self._updating = False
        keys = zip(self.frame["run"], self.frame["problem"])
        self._places = {key: row for row, key in reversed(list(enumerate(keys)))}  # the first counts
        self._controls = Controls(self.frame, self.runs)
        super().__init__([self._controls.window])
        self.add_class("maft-explorer")
        self._listen()
        self._filter()

    def __repr__(self) -> str:
        return f"DebateExplorer({len(self.debates):,} debates, {len(self.runs):,} runs)"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict:
        """The live view, and HTML for pages without a kernel; JupyterLab prefers the view."""
        bundle = super()._repr_mimebundle_(**kwargs) or {"text/plain": repr(self)}
        return {**bundle, "text/html": self._controls.screen.value}

    # --- for code ----------------------------------------------------------------------------------

    @property
    def matching(self) -> list[Debate]:
        """The debates that match the filters, in the order of the list."""
        return [self.debates[row] for row in self._rows]

    @property
    def selected(self) -> Debate | None:
        """The debate on screen; None if none matches the filters."""
        return self.debates[self._row] if len(self._rows) else None

    @property
    def compared(self) -> Debate | None:
        """The debate beside it, of the same problem in another run; None if there is none."""
        row = self._compared_row()
        return None if row is None else self.debates[row]

    def select(self, problem_id: str | None = None, **run: Any) -> Debate:
        """Puts the first debate on screen that has these values, and clears filters that hide it.

        `run` is any of `method`, `iteration` and `seed`. Raises `ValueError` if no debate has them.
        """
        row = self._find({"problem": problem_id, **self._checked(run)})
        if row not in self._rows:
            self._clear()
        self._go(int(np.flatnonzero(self._rows == row)[0]))
        return self.debates[row]

    def compare(self, **run: Any) -> Debate | None:
        """Puts another run beside the one on screen: `method`, `iteration` and `seed`, the rest alike.

        Without arguments nothing stays beside it. Returns the same problem's debate in that run, if it
        has one. Raises `ValueError` if there is no such run.
        """
        number: Any = ANY
        if self._checked(run):
            here = self.frame.iloc[self._row][list(selection.RUN)].dropna() if len(self._rows) else {}
            number = int(self.frame["run"].iloc[self._find({**here, **run})])
        self._controls.compare.value = number
        return self.compared

    def _checked(self, run: dict[str, Any]) -> dict[str, Any]:
        strange = sorted(set(run) - set(selection.RUN))
        if strange:
            raise ValueError(
                f"a debate is found by problem_id, method, iteration, seed, not {strange[0]}."
            )
        return run

    def _find(self, values: dict[str, Any]) -> int:
        rows = selection.matching_rows(self.frame, values)
        if not len(rows):
            asked = ", ".join(
                f"{name} {value!r}" for name, value in values.items() if value is not None
            )
            raise ValueError(f"no debate has {asked}: `explorer.frame` lists all there are.")
        return int(rows[0])

    # --- what the controls do ----------------------------------------------------------------------

    def _listen(self) -> None:
        controls = self._controls
        for control in (*controls.filters.values(), controls.outcome, controls.search, controls.change):
            self._hear(control, self._filter)
        self._hear(controls.compare, self._compare)
        self._hear(controls.round, self._step)
        self._hear(controls.listing, lambda: self._go(self._listed.start + controls.listing.index))
        controls.previous.on_click(lambda _: self._go(self._position - 1))
        controls.next.on_click(lambda _: self._go(self._position + 1))
        controls.clear.on_click(lambda _: self._clear())

    def _hear(self, control: Any, react: Callable[[], None]) -> None:
        """Reacts to a control, unless it is the explorer itself that changes it."""
        control.observe(lambda _: None if self._updating else react(), "value")

    @contextmanager
    def _quietly(self) -> Iterator[Controls]:
        self._updating = True
        try:
            yield self._controls
        finally:
            self._updating = False

    def _clear(self) -> None:
        with self._quietly() as controls:
            for control in (*controls.filters.values(), controls.outcome, controls.change):
                control.value = ANY
            controls.search.value = ""
        self._filter()

    def _step(self) -> None:
        """Another round is to be the last one shown; the last of all means all, in any debate."""
        slider = self._controls.round
        self._rounds = slider.value if slider.value < slider.max else None
        self._draw()

    def _compare(self) -> None:
        """Another run, or none, is to stand beside the debate."""
        with self._quietly() as controls:
            nothing, changed = chosen(controls.compare) is None, chosen(controls.change) is not None
            show(controls.change, not nothing)
            if nothing:
                controls.change.value = ANY
        self._filter() if changed else self._draw()

    def _filter(self) -> None:
        """Looks for the debates that match; the one on screen stays there if it is among them."""
        controls, row = self._controls, self._row if len(self._rows) else None
        values = {name: chosen(control) for name, control in controls.filters.items()}
        outcome, became_right = chosen(controls.outcome), chosen(controls.change)
        rows = selection.matching_rows(self.frame, values, outcome, controls.search.value)
        if became_right is not None:
            rows = selection.changed_rows(self.frame, rows, chosen(controls.compare), became_right)
        self._rows, self._listed = rows, slice(0, 0)
        kept = np.flatnonzero(rows == row)
        self._go(int(kept[0]) if len(kept) else 0)

    def _go(self, position: int) -> None:
        """Shows the debate at a position among those that match, or the nearest there is."""
        self._position = max(0, min(position, len(self._rows) - 1))
        with self._quietly():
            self._list()
            self._count()
        self._draw()

    # --- what is seen ------------------------------------------------------------------------------

    @property
    def _row(self) -> int:
        return int(self._rows[self._position])

    def _list(self) -> None:
        """A page of the list around the position, and the debate in it that is on screen."""
        page, listing = self._page(), self._controls.listing
        with listing.hold_sync():
            if page != self._listed:
                rows = self._rows[page]
                several = self.frame["run"].iloc[rows].nunique() > 1
                lines = self._long_lines if several else self._short_lines
                listing.options = [(lines[row], row) for row in rows.tolist()]
                self._listed = page
            listing.index = self._position - page.start if len(self._rows) else None

    def _page(self) -> slice:
        """The page that is listed, or a new one if the position is at its edge, so that keys go on."""
        if self._listed.start < self._position < self._listed.stop - 1:
            return self._listed
        start = max(0, min(self._position - PAGE // 2, len(self._rows) - PAGE))
        return slice(start, start + PAGE)

    def _count(self) -> None:
        matching, everything = f"{len(self._rows):,}", f"{len(self.debates):,}"
        text = f"<b>{matching}</b> of {everything} debates match"
        if len(self._rows):
            text += f", this is number {self._position + 1:,}"
        if len(self._rows) > PAGE:
            text += f" (listed: {self._listed.start + 1:,} to {self._listed.stop:,})"
        self._controls.count.value = f'<span role="status">{text}.</span>'

    def _draw(self) -> None:
        """The debate on screen, and the one beside it, up to the round that the slider says."""
        screen, compared = self._controls.screen, chosen(self._controls.compare)
        if not len(self._rows):
            screen.value = notice_html(NO_MATCH)
            return
        row, other = self._row, self._compared_row()
        shown = [row] if other is None else [row, other]
        most = int(self.frame["num_rounds"].iloc[shown].max())
        rounds = min(self._rounds or most, most)
        self._fit_slider(rounds, most)
        panes = [self._pane(row, rounds)]
        if other is not None:
            panes.append(self._pane(other, rounds))
        elif compared is not None:
            same = compared == self.frame["run"].iloc[row]
            panes.append(Pane(self.runs[compared], [], SAME_RUN if same else NOT_ASKED))
        screen.value = screen_html(panes, rounds)

    def _pane(self, row: int, rounds: int) -> Pane:
        """A debate headed by its run and, once its last round is shown, by what happened in it."""
        values = self.frame.iloc[row]
        happened = [name.replace("_", " ") for name in OUTCOMES if values[name]]
        finished = rounds >= values["num_rounds"]
        told = self.runs[values["run"]] if len(self.runs) > 1 else ""
        return Pane(told, happened if finished else [], self.debates[row])

    def _fit_slider(self, value: int, most: int) -> None:
        """The slider for so many rounds; hidden for one (a slider needs two places to stand)."""
        with self._quietly() as controls, controls.round.hold_sync():
            show(controls.round, most > 1)
            controls.round.max = max(most, 2)
            controls.round.value = value

    def _compared_row(self) -> int | None:
        """The row of the same problem in the run to compare with; None if that has none."""
        run = chosen(self._controls.compare)
        if run is None or not len(self._rows) or run == self.frame["run"].iloc[self._row]:
            return None
        return self._places.get((run, self.frame["problem"].iloc[self._row]))
