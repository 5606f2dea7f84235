"""The index over debates that the explorer filters: a data frame with one row per debate.

Knows results, debates and their outcomes; no widgets and no HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from maft_lib.arguments import check_debate
from maft_lib.debate import Debate
from maft_lib.lab.explorer.outcomes import OUTCOMES, Judged
from maft_lib.study import Result

Explorable: TypeAlias = Iterable[Debate | Result] | Mapping[Any, Any] | Result

RUN = ("method", "seed", "iteration")  # what tells two debates of the same problem apart
ACCEPTED = "a list of Debates, a Result, or a list or dict of Results"


class Entry(NamedTuple):
    """A debate and the run that it comes from, as far as that is known."""

    debate: Debate
    method: str | None = None
    seed: int | None = None
    iteration: int | None = None


def entries(explorable: Explorable) -> list[Entry]:
    """All debates in what `DebateExplorer` takes, in their order; of a Result those on eval problems.

    The keys of a dict stand where the methods do; its values may be Results or lists. Results of a list
    that agree in method, seed and task are numbered: `debate`, `debate (2)`. Raises `ValueError` if
    there is no debate, or one that did not come to its end, and for anything else.
    """
    found = _entries(explorable)
    for place, entry in enumerate(found):
        check_debate(f"debate {place}", entry.debate)
    if not found:
        raise ValueError(f"there are no debates to explore: give {ACCEPTED}.")
    return found


def _entries(explorable: Explorable) -> list[Entry]:
    if isinstance(explorable, Mapping):
        return [
            entry._replace(method=", ".join(map(str, name)) if isinstance(name, tuple) else str(name))
            for name, part in explorable.items()
            for entry in _entries(part)
        ]
    parts: list[Any] = list(explorable) if isinstance(explorable, Iterable) else [explorable]
    if all(isinstance(part, Debate) for part in parts):
        return [Entry(part) for part in parts]
    strangers = [part for part in parts if not isinstance(part, Result)]
    if strangers:
        kind = type(strangers[0]).__name__
        raise ValueError(f"there is a {kind} among what is to be explored: give {ACCEPTED}.")
    return _of_results(parts)


def _of_results(results: Sequence[Result]) -> list[Entry]:
    found: list[Entry] = []
    met: Counter = Counter()
    for result in results:
        seed = result.config.seed if result.config else None
        tasks = {debate.problem.task for debates in result.evaluations for debate in debates}
        alike = (result.method, seed, *sorted(tasks))
        met[alike] += 1
        name = result.method if met[alike] == 1 else f"{result.method} ({met[alike]})"
        for iteration, debates in enumerate(result.evaluations):
            found += [Entry(debate, name, seed, iteration) for debate in debates]
    return found


def index_frame(found: Sequence[Entry]) -> pd.DataFrame:
    """One row per debate, in order: its problem, its run, how many were right, and its outcomes.

    `first_right` and `last_right` count agents that are right in the first and the last round;
    every name in `OUTCOMES` is a column of booleans. `run` numbers the runs (`RUN`) as they come.
    """
    frame = pd.DataFrame([_row(entry) for entry in found])
    numbers = ["level", "seed", "iteration"]
    frame[numbers] = frame[numbers].astype("Int64")
    runs = {run: number for number, run in enumerate(dict.fromkeys(entry[1:] for entry in found))}
    frame["run"] = [runs[entry[1:]] for entry in found]
    return frame


def _row(entry: Entry) -> dict:
    judged, problem = Judged(entry.debate), entry.debate.problem
    return {
        "problem": problem.id,
        "task": problem.task,
        "level": problem.level,
        "question": " ".join(problem.question.split()),
        **dict(zip(RUN, entry[1:])),
        "num_agents": len(judged.right),
        "num_rounds": len(judged.right[0]),
        "vote": entry.debate.vote,
        "first_right": judged.num_right(0),
        "last_right": judged.num_right(-1),
        **{name: getattr(judged, name) for name in OUTCOMES},
    }


def runs_of(frame: pd.DataFrame) -> list[str]:
    """What each run is called, in the order of their numbers: only what tells it from the others."""
    runs = frame.drop_duplicates("run")
    told = [name for name in RUN if runs[name].nunique(dropna=False) > 1]
    return [
        ", ".join(str(run[k]) if k == "method" else f"{k} {run[k]}" for k in told if pd.notna(run[k]))
        or f"run {number + 1}"
        for number, run in enumerate(runs.to_dict("records"))
    ]


def matching_rows(
    frame: pd.DataFrame, values: Mapping[str, Any], outcome: str | None = None, words: str = ""
) -> np.ndarray:
    """The numbers of the rows that have all these values, an outcome, and all words in the question.

    A value of None is not asked for. Case does not matter in words.
    """
    keep = np.ones(len(frame), dtype=bool)
    for name, value in values.items():
        if value is not None:
            keep &= (frame[name] == value).to_numpy(dtype=bool, na_value=False)
    if outcome is not None:
        keep &= frame[outcome].to_numpy()
    rows = np.flatnonzero(keep)
    wanted = words.casefold().split()
    if not wanted:
        return rows
    asked = frame["question"].iloc[rows]
    return rows[[all(word in question.casefold() for word in wanted) for question in asked]]


def changed_rows(frame: pd.DataFrame, rows: np.ndarray, run: int, became_right: bool) -> np.ndarray:
    """The rows whose vote is wrong, and right in `run` on the same problem; or the other way round."""
    other = frame[frame["run"] == run].drop_duplicates("problem").set_index("problem")["vote_right"]
    here, there = frame["vote_right"].iloc[rows], frame["problem"].iloc[rows].map(other)
    return rows[((here != became_right) & (there == became_right)).to_numpy(dtype=bool)]
