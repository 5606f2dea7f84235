"""Standard errors, intervals and paired tests.

Methods answer the same problems, so a difference between two of them is judged problem by problem: how
hard the problems are cancels. Shares are 0 to 1 in the functions on arrays, percent in data frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

Correct: TypeAlias = Sequence[bool] | np.ndarray | pd.Series
SIGNIFICANCE_LEVEL = 0.05


def standard_error(correct: Correct, problems: Sequence | None = None) -> float:
    """Standard error of an accuracy: std of the per-problem correctness / sqrt(problems) (Section 3.1).

    `correct` (answers,) of 0 and 1; the result is a share. `problems` (answers,) names the problem of
    each answer where several seeds may have drawn the same: answers to one problem are one unit.
    """
    values = np.asarray(correct, dtype=float)
    if problems is None:
        return float(values.std() / math.sqrt(len(values)))
    unit = pd.factorize(np.asarray(problems))[0]
    return float(np.linalg.norm(np.bincount(unit, values - values.mean())) / len(values))


def mean_over_problems(frame: pd.DataFrame, keys: Sequence[str], column: str = "value") -> pd.DataFrame:
    """`mean`, `error` and `problems` (that have a value) of a column for each value of `keys`.

    Rows of one problem are averaged first. The error is the standard error over problems (nan for a
    single one); with several seeds it is that of the mean over seeds.
    """
    rows, frame = [], frame if "seed" in frame else frame.assign(seed=0)
    for names, part in frame.groupby(list(keys), sort=False, dropna=False):
        single = part.groupby(["seed", "problem"])[column].mean().dropna()
        means = single.groupby(level=0).mean()
        over_problems = len(means) == 1 < len(single)
        error = standard_error(single) if over_problems else means.sem()
        problems = single.index.get_level_values("problem").nunique()
        rows.append([*names, means.mean(), error, problems])
    return pd.DataFrame(rows, columns=[*keys, "mean", "error", "problems"])


def paired_difference(
    a: Correct, b: Correct, problems: Sequence | None = None, num_resamples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """How much more often `a` is right than `b` (pairs,): `difference`, its error, interval and p.

    `problems` (pairs,) names the problem of each pair; pairs of one problem are one unit. `low` and
    `high` are the 95 % percentile interval of a bootstrap that draws problems. `p` is McNemar's exact
    two-sided one: only discordant problems count, where under the null hypothesis either method is as
    likely to be the right one; 1.0 where there are none. All but `p` are shares.
    """
    from scipy import stats  # which takes a second

    gains = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    unit = np.arange(len(gains)) if problems is None else pd.factorize(np.asarray(problems))[0]
    gains, sizes = np.bincount(unit, gains), np.bincount(unit).astype(float)
    mean = gains.sum() / sizes.sum()
    error = math.sqrt(((gains - mean * sizes) ** 2).sum()) / sizes.sum()
    # Few different (gain, size) occur, so it is enough to draw how often each does.
    kinds, counts = np.unique(np.column_stack([gains, sizes]), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(gains), counts / len(gains), size=num_resamples)
    sums, totals = (drawn @ kinds).T
    low, high = np.quantile(sums / totals, [0.025, 0.975])
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    p = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    found = {"difference": mean, "standard_error": error, "low": low, "high": high, "p": p}
    return {name: float(value) for name, value in found.items()}


def holm(p_values: Sequence[float] | np.ndarray | pd.Series) -> np.ndarray:
    """Holm's step-down correction of (tests,) p values; nan, a test that was not made, stays nan."""
    p = np.array(p_values, dtype=float)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # nan comes last
    steps = p[order] * np.arange(len(order), 0, -1)
    p[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return p


def compare(scores: pd.DataFrame, baselines: Sequence[str] | None = None) -> pd.DataFrame:
    """Is a lead more than luck? Each method of each task against the task's strongest baseline.

    `scores` has one iteration of each method; methods are paired on seed and problem. Shares are in
    percent, differences in points; `p_holm` is corrected over the whole table.

    The baseline is the most accurate of `baselines`, the first of them where several are; their own
    rows are empty, as they claim nothing. With None it is the best of all the other methods.
    """
    rows: list[dict] = []
    for task, part in scores.groupby("task", sort=False):
        answers = part.pivot(index=["seed", "problem"], columns="method", values="correct")
        answers = answers[list(part.method.unique())]
        if answers.isna().any(axis=None):
            raise ValueError(f"the methods of {task!r} answer different problems: run them alike.")
        answers, problems = answers.astype(float), answers.index.get_level_values("problem")
        percent = 100 * answers.mean()
        candidates = answers.columns if baselines is None else baselines
        for method in answers:
            row = {"task": task, "method": method, "accuracy": percent[method]}
            rivals = [name for name in candidates if name in answers and name != method]
            if rivals and method not in (baselines or ()):
                rival = str(percent[rivals].idxmax())
                found = paired_difference(answers[method], answers[rival], problems)
                row |= {name: 100 * share for name, share in found.items()}
                row |= {"baseline": rival, "p": found["p"]}
            rows.append({**row, "problems": problems.nunique()})
    columns = ["task", "method", "baseline", "accuracy", "difference", "standard_error", "low", "high"]
    table = pd.DataFrame(rows, columns=[*columns, "p", "problems"])
    table["baseline"] = table.baseline.astype(object).where(table.baseline.notna(), None)
    table.insert(9, "p_holm", holm(table.p))
    table.insert(10, "significant", table.p_holm < SIGNIFICANCE_LEVEL)
    return table


def standard_errors_apart(a: float, error_a: float, b: float, error_b: float) -> float:
    """(a - b) over the standard error of the difference of two *independent* accuracies, or nan."""
    error = math.hypot(error_a, error_b)
    return float((a - b) / error) if error > 0 else math.nan
