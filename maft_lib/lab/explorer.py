"""A browser of finished debates for JupyterLab: filter by what happened, compare runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import ipywidgets as widgets
import numpy as np
import pandas as pd

from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct
from maft_lib.lab.debates import View
from maft_lib.lab.page import drawn, escaped, framed
from maft_lib.study import Result

Explorable: TypeAlias = Iterable[Debate | Result] | Mapping[Any, Any] | Result

RUN = ("method", "seed", "iteration")  # what tells two debates of the same problem apart
ANY = ""  # the value of a choice that is not made: for ipywidgets, None would be no option at all
BECAME = {"became right there": True, "became wrong there": False}  # in the run to compare with
LEGEND = "✓ the vote is right, ✗ wrong; 1→3/3: one of three agents is right first, three are last"
KEYS = Path(__file__).with_name("keys.js").read_text(encoding="utf-8")


def entries(explorable: Explorable) -> Iterator[tuple[Debate, dict[str, Any]]]:
    """All debates in what `DebateExplorer` takes, in order, each with what is known of its run."""
    if isinstance(explorable, Mapping):
        for key, part in explorable.items():
            name = ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
            yield from ((debate, run | {"method": name}) for debate, run in entries(part))
        return
    for part in explorable if isinstance(explorable, Iterable) else [explorable]:
        if isinstance(part, Debate):
            yield part, {}
        elif isinstance(part, Result):
            seed = part.config.seed if part.config else None
            for iteration, debates in enumerate(part.evaluations):
                run = {"method": part.method, "seed": seed, "iteration": iteration}
                yield from ((debate, run) for debate in debates)
        else:
            raise ValueError(f"A {type(part).__name__} cannot be explored: give Debates or Results.")


def index_row(debate: Debate, **run: Any) -> dict[str, Any]:
    """A row of the index: the problem, the run, how many were right first and last, the outcomes.

    Several outcomes may hold. An answer that cannot be read is wrong and in no class of equivalent
    answers. Without a ground truth nothing is right, nor is the vote wrong. An agent is fixed or broken
    by its critic turns, first answer against last. A debate is turned right or wrong if its vote is,
    and the first answers could not have voted so, not even by luck in a tie.
    """
    problem, answers = debate.problem, debate.answers
    right = [[is_correct(answer, problem) for answer in agent] for agent in answers]
    first, last = (group_equivalent([agent[m] for agent in answers], problem.task) for m in (0, -1))
    vote_right = is_correct(debate.vote, problem)
    vote_wrong = not vote_right and (bool(problem.answer.strip()) or problem.scoring is not None)
    unanimous = len(last) == 1 and len(last[0]) == len(right) > 1
    could_win = [any(right[n][0] for n in c) for c in first if len(c) == len(max(first, key=len))]
    turned = len(right[0]) > 1  # it can be
    return {
        "problem": problem.id,
        "task": problem.task,
        "level": problem.level,
        **{name: run.get(name) for name in RUN},
        "question": " ".join(problem.question.split()),
        "first_right": sum(agent[0] for agent in right),
        "last_right": sum(agent[-1] for agent in right),
        "vote_right": vote_right,
        "vote_wrong": vote_wrong,
        "split_vote": len(last) > 1,
        "tie": [len(c) for c in last].count(max(map(len, last), default=0)) > 1,
        "unanimous_and_right": unanimous and vote_right,
        "unanimous_and_wrong": unanimous and vote_wrong,
        "critic_fixed_it": any(agent[-1] and not agent[0] for agent in right),
        "critic_broke_it": any(agent[0] and not agent[-1] for agent in right),
        "turned_right": turned and vote_right and not any(could_win),
        "turned_wrong": turned and vote_wrong and bool(could_win) and all(could_win),
        "unparsable": sum(map(len, last)) < len(right),
    }


def index_frame(found: Iterable[tuple[Debate, dict[str, Any]]]) -> pd.DataFrame:
    """One `index_row` per debate, in order; `run` says what tells its run from the others."""
    frame = pd.DataFrame([index_row(debate, **run) for debate, run in found])
    frame = frame.astype(dict.fromkeys(("level", "seed", "iteration"), "Int64"))
    differing = [name for name in RUN if frame[name].nunique(dropna=False) > 1]
    words = ["" if name == "method" else f"{name} " for name in differing]
    runs = [
        ", ".join(f"{word}{value}" for word, value in zip(words, values) if pd.notna(value))
        for values in frame[differing].to_numpy()
    ]
    return frame.assign(run=runs)


class DebateExplorer(widgets.VBox):
    """Finished debates to filter and compare, in JupyterLab.

    Takes a list of Debates, a `Result` (its debates on the eval problems after every iteration), or a
    list or dict of Results; a dict's keys stand where the methods do, and its values may be lists of
    Debates. Where there is no kernel, the HTML of the debate that was selected stands in the notebook.
    `frame` is the index (`index_frame`), `debates` the debates in its order, `selected` the one on
    screen. Raises `ValueError` if there is no debate.
    """

    def __init__(self, debates_or_results: Explorable):
        found = list(entries(debates_or_results))
        if not found:
            raise ValueError("There are no debates to explore: run some, or give another Result.")
        self.debates = [debate for debate, _ in found]
        self.frame = index_frame(found)
        self._outcomes = list(self.frame.select_dtypes(bool))
        self._lines = [*map(_line, self.frame.itertuples(), self.debates)]
        super().__init__(self._controls())
        self.add_class("maft-explorer")
        self._filter()

    def __repr__(self) -> str:
        return f"DebateExplorer({len(self.debates):,} debates, {self.frame['run'].nunique():,} runs)"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict:
        """The live view, and HTML for pages without a kernel; JupyterLab prefers the view."""
        bundle = super()._repr_mimebundle_(**kwargs) or {"text/plain": repr(self)}
        return {**bundle, "text/html": self._screen.value}

    @property
    def selected(self) -> Debate | None:
        """The debate on screen; None if none matches the filters."""
        return None if self._list.value is None else self.debates[self._list.value]

    def _controls(self) -> list[widgets.Widget]:
        """Filters above; the list beside the debate, or above it where there is no room."""
        self._filters = {}
        for name in ("task", "level", *RUN):
            values = self.frame[name].dropna().unique().tolist()
            values = values if name in ("task", "method") else sorted(values)
            self._filters[name] = _choice(name, "all", {str(value): value for value in values})
        runs = self.frame["run"].unique().tolist()
        self._compare = _choice("compare", "nothing", {run: run for run in runs})
        happened = [name for name in self._outcomes if self.frame[name].any()]
        known = {name.replace("_", " "): name for name in [*happened, *(BECAME if runs[1:] else ())]}
        self._outcome = _choice("outcome", "all", known)
        hint = {"placeholder": "words in the question", "width": "16rem"}
        self._search = control("search", widgets.Text, description="search", **hint)
        above = [*self._filters.values(), self._outcome, self._search]
        for choice in (*above, self._compare):
            choice.observe(self._filter, "value")
        self._clear = button("clear", "clear filters", self._show_all)
        self._count, self._screen = control("count", widgets.HTML), control("screen", widgets.HTML)
        self._list = control("list", widgets.Select, rows=16, tooltip=LEGEND)
        self._list.observe(self._draw, "value")
        narrow, wide = ({"flex": flex, "min_width": "0"} for flex in ("1 1 18rem", "4 1 34rem"))
        beside = widgets.VBox([self._count, self._list], layout=narrow)
        debate = widgets.VBox([self._compare, self._screen], layout=wide)
        return [row(*above, self._clear), row(beside, debate), own_keys()]

    def _show_all(self, _: widgets.Button) -> None:
        for choice in (*self._filters.values(), self._outcome, self._search):
            choice.value = ANY

    def _filter(self, _: Any = None) -> None:
        """Looks for the debates that match; the one on screen stays there if it is among them."""
        frame, keep = self.frame, pd.Series(True, self.frame.index)
        for name, choice in self._filters.items():
            if choice.value != ANY:
                keep &= (frame[name] == choice.value).fillna(False).astype(bool)
        for word in self._search.value.casefold().split():
            keep &= frame["question"].str.casefold().str.contains(word, regex=False)
        outcome = self._outcome.value
        if outcome in BECAME:
            other = frame[frame["run"] == self._compare.value].drop_duplicates("problem")
            there = frame["problem"].map(other.set_index("problem")["vote_right"])
            keep &= (frame["vote_right"] != BECAME[outcome]) & (there == BECAME[outcome])
        elif outcome != ANY:
            keep &= frame[outcome]
        places, kept = np.flatnonzero(keep).tolist(), self._list.value
        self._list.unobserve(self._draw, "value")
        with self._list.hold_sync():
            self._list.options = [(self._lines[place], place) for place in places]
            self._list.value = kept if kept in places else next(iter(places), None)
        self._list.observe(self._draw, "value")
        self._draw()

    def _draw(self, _: Any = None) -> None:
        """The debate on screen, and the one of the same problem in the run to compare with."""
        frame, place, run = self.frame, self._list.value, self._compare.value
        number = "" if place is None else f", this is number {self._list.index + 1:,}"
        text = f"<b>{len(self._list.options):,}</b> of {len(frame):,} debates match{number}."
        self._count.value = f'<span role="status">{text}</span>'
        if place is None:
            self._screen.value = framed("<p>No debate matches these filters: clear or change them.</p>")
            return
        panes = [self._pane(place)]
        if run != ANY:
            same = (frame["problem"] == frame["problem"][place]) & (frame["run"] == run)
            same &= frame["run"] != frame["run"][place]
            missing = f"<section><b>{escaped(run)}</b>: no other debate of the problem.</section>"
            panes.append(self._pane(int(same.argmax())) if same.any() else missing)
        self._screen.value = framed(f'<div class="maft-panes">{"".join(panes)}</div>', "maft-debate")

    def _pane(self, place: int) -> str:
        """A debate headed by its run and by what happened in it."""
        values = self.frame.iloc[place]
        happened = [name.replace("_", " ") for name in self._outcomes if values[name]]
        return drawn("pane", values["run"], happened, drawn("debate", View(self.debates[place])))


def _line(values: Any, debate: Debate) -> str:
    """The line that stands for a debate in the list."""
    sign = "–" if debate.vote is None else "✗✓"[values.vote_right] if debate.problem.answer else "?"
    first = f"{values.first_right}→" if len(debate.turns[0]) > 1 else ""
    counts = f" {first}{values.last_right}/{len(debate.turns)}" if len(debate.turns) > 1 else ""
    run = f" [{values.run}]" if values.run else ""
    return f"{sign}{counts}{run} {values.question[:90]}"


def control(name: str, kind: type, **traits: Any) -> Any:
    """A widget that carries the class `maft-<name>`; `width` and `height` are its layout's."""
    size = {side: traits.pop(side, "auto") for side in ("width", "height")}
    made = kind(**traits, layout=widgets.Layout(**size, max_width="100%", margin="2px 12px 2px 2px"))
    if hasattr(made.style, "description_width"):
        made.style.description_width = "initial"
    made.add_class(f"maft-{name}")
    return made


def button(name: str, label: str, react: Callable[[widgets.Button], None]) -> Any:
    """A button and what it does."""
    made = control(name, widgets.Button, description=label)
    made.on_click(react)
    return made


def row(*controls: widgets.Widget) -> widgets.Box:
    """Controls side by side, on several lines where there is no room."""
    layout = {"flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
    return widgets.Box(controls, layout=layout)


def _choice(name: str, nothing: str, known: dict[str, Any]) -> Any:
    """A drop-down list, hidden if it has no choice to offer; `nothing` stands for none."""
    options = [(nothing, ANY), *known.items()]
    made = control(name, widgets.Dropdown, description=name, options=options)
    made.layout.display = None if len(known) > 1 else "none"
    return made


def own_keys() -> widgets.Output:
    """A widget that shows nothing; on a page with it, our widgets get the keys pressed in them."""
    script = {"output_type": "display_data", "data": {"application/javascript": KEYS}, "metadata": {}}
    return widgets.Output(outputs=(script,), layout={"display": "none"})
