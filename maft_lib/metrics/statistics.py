"""Standard errors, intervals and paired tests.

Methods answer the same problems, so a difference between two of them is judged problem by problem: how
hard the problems are cancels. Shares are 0 to 1 in the functions on arrays, percent in data frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

Correct: TypeAlias = Sequence[bool] | np.ndarray | pd.Series
SIGNIFICANCE_LEVEL = 0.05
SUPPORTED, NOT_SUPPORTED, CANNOT_TELL = "supported", "not supported", "cannot be told here"


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


def smallest_difference(discordant: float, num_pairs: int, power: float = 0.8) -> float:
    """The smallest difference, a share, that so many pairs show as significant with this probability.

    `discordant` is the share of pairs in which one of two methods is right and the other is not. It
    inverts the power of McNemar's test (Connor, 1987): d sqrt(n) = z_a sqrt(q) + z_b sqrt(q - d^2).
    Without discordant pairs it is not known.
    """
    from scipy import stats  # which takes a second

    z_a, z_b = stats.norm.ppf([1 - SIGNIFICANCE_LEVEL / 2, power])
    n, q = num_pairs, discordant
    middle = z_a * math.sqrt(q * n)
    root = math.sqrt(middle**2 - (n + z_b**2) * (z_a**2 - z_b**2) * q)
    return min(1.0, float((middle + root) / (n + z_b**2))) if q else math.nan


def contrast(a: pd.Series, b: pd.Series, num_resamples: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Is `a` above `b` in every seed? Both are numbers of problems, indexed by (seed, problem).

    `difference` is the mean over seeds, `low` and `high` are the 95 % interval of a bootstrap that
    draws problems within each seed, `seeds` the differences of the seeds, all in points. `p` is of a
    sign test over problems (McNemar's exact one where values are 0 and 1), and `smallest` the
    difference that so many pairs show at 80 %. The `verdict` is *supported* if the interval is above
    zero and so is every seed, *not supported* if all are below, else *cannot be told here*.
    """
    gains = 100 * (a.astype(float) - b.astype(float))
    if gains.isna().any():
        raise ValueError("a and b have different problems: run both on the same seeds and problems.")
    rng, by_seed = np.random.default_rng(seed), gains.groupby(level=0)
    draws = np.zeros(num_resamples)
    for _, own in by_seed:  # few different gains occur, so it is enough to draw how often each does
        kinds, counts = np.unique(own, return_counts=True)
        draws += rng.multinomial(len(own), counts / len(own), size=num_resamples) @ kinds / len(own)
    low, high = np.quantile(draws / len(by_seed), [0.025, 0.975])
    seeds, signs = by_seed.mean(), paired_difference(gains > 0, gains < 0, num_resamples=1)
    verdict = CANNOT_TELL
    if min(low, *seeds) > 0 or max(high, *seeds) < 0:
        verdict = SUPPORTED if low > 0 else NOT_SUPPORTED
    found = {"difference": seeds.mean(), "low": low, "high": high, "p": signs["p"]}
    smallest = 100 * smallest_difference(float((gains != 0).mean()), len(gains))
    return found | {"seeds": list(seeds), "n": len(gains), "smallest": smallest, "verdict": verdict}


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
    percent, differences in points; `p_holm` is corrected over the whole table, and `smallest` is the
    difference that these problems would show at 80 %, before that correction.

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
                discordant = float((answers[method] != answers[rival]).mean())
                row["smallest"] = 100 * smallest_difference(discordant, problems.nunique())
            rows.append({**row, "problems": problems.nunique()})
    columns = ["task", "method", "baseline", "accuracy", "difference", "standard_error", "low", "high"]
    table = pd.DataFrame(rows, columns=[*columns, "p", "problems", "smallest"])
    table["baseline"] = table.baseline.astype(object).where(table.baseline.notna(), None)
    table.insert(9, "p_holm", holm(table.p))
    table.insert(10, "significant", table.p_holm < SIGNIFICANCE_LEVEL)
    return table


def standard_errors_apart(a: float, error_a: float, b: float, error_b: float) -> float:
    """(a - b) over the standard error of the difference of two *independent* accuracies, or nan."""
    error = math.hypot(error_a, error_b)
    return float((a - b) / error) if error > 0 else math.nan
