"""A measure over a study: means with standard errors, after each iteration. Knows no measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from maft_lib.arguments import check_able, check_columns, check_each, check_text
from maft_lib.debate import Debate
from maft_lib.result import Result
from maft_lib.society import Society
from maft_lib.statistics import standard_error, standard_error_of_mean

Measure = Callable[[Sequence[Debate], Society], pd.DataFrame]


def by_iteration(results: Sequence[Result], measure: Measure, column: str = "value") -> pd.DataFrame:
    """Mean and standard error of a measure after each iteration of each study.

    `measure` takes the debates on the eval problems and the society that held them. The rows have
    `method`, `task` (that is tested), `iteration`, `trained_on` where some were trained on another
    task, and what `mean_over_problems` adds. Raises `ValueError` without studies, and for a measure
    that makes no such frame.
    """
    check_each("results", results, object)
    for place, result in enumerate(results):
        check_able(f"results[{place}]", result, "evaluations", "what run_study returns")
    check_able("measure", measure, "__call__", "a function of debates and the society that held them")
    frames = [
        measure(debates, society).assign(**_run(result), iteration=number)
        for result in results
        for number, (society, debates) in enumerate(zip(result.societies, result.evaluations))
    ]
    frame = pd.concat(frames, ignore_index=True)
    keys = [key for key in ("method", "task", "trained_on", "iteration") if frame[key].notna().any()]
    return mean_over_problems(frame, keys, column)


def _run(result: Result) -> dict:
    """What tells a study from others; `trained_on` only where that is another task than is tested."""
    first = result.frame.iloc[0]
    return {**first[["method", "task", "seed"]], "trained_on": first.get("trained_on")}


def mean_over_problems(frame: pd.DataFrame, keys: Sequence[str], column: str = "value") -> pd.DataFrame:
    """`mean`, `error` and `problems` of a column for each value of `keys`, in the column's unit.

    Rows of one problem are averaged first, since they are not independent. The error is the standard
    error over problems (nan for a single one); with several seeds it is that of the mean over seeds.
    `problems` counts those that have a value. Raises `ValueError` for a frame without such columns.
    """
    check_each("keys", keys, str)
    check_text("column", column)
    check_columns("frame", frame, [*keys, "problem", column])
    rows = []
    for names, part in frame.groupby(list(keys), sort=False, dropna=False):
        seeds = part.seed if "seed" in part else pd.Series(0, index=part.index)
        single = part.groupby([seeds, "problem"])[column].mean().dropna()
        means = single.groupby(level=0).mean()
        error = standard_error_of_mean(means)
        if len(means) == 1 < len(single):
            error = standard_error(single)
        problems = single.index.get_level_values("problem").nunique()
        row = {"mean": means.mean(), "error": error, "problems": problems}
        rows.append({**dict(zip(keys, names)), **row})
    return pd.DataFrame(rows, columns=[*keys, "mean", "error", "problems"])
