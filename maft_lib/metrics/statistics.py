"""Numbers about numbers: standard errors, intervals, paired tests. Knows no debates and no models.

Methods answer the same problems, so a difference between two of them is judged problem by problem:
much of what makes an accuracy uncertain is how hard the problems are, and that cancels. Shares are 0
to 1 in the functions on arrays, percent and points in the data frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from maft_lib.arguments import (
    as_numbers,
    check_columns,
    check_each,
    check_number,
    check_numbers,
    check_whole,
)

Correct: TypeAlias = Sequence[bool] | np.ndarray | pd.Series
SIGNIFICANCE_LEVEL = 0.05


def standard_error(correct: Correct, problems: Sequence | None = None) -> float:
    """Standard error of an accuracy: std of the per-problem correctness / sqrt(problems).

    `correct` (answers,) of 0 and 1; the result is a share, not a percentage (Section 3.1). `problems`
    (answers,) names the problem of each answer, where several seeds may have drawn the same: answers
    to one problem are one unit. Raises `ValueError` for no answer and for nan.
    """
    values = as_numbers("correct", correct)
    if problems is None:
        return float(values.std() / math.sqrt(len(values)))
    unit = _units(problems, len(values))
    return float(np.linalg.norm(np.bincount(unit, values - values.mean())) / len(values))


def standard_error_of_mean(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean of independent repetitions (seeds,); nan for a single one."""
    numbers = as_numbers("values", values, least=0, nan=True)
    return float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.nan


def wilson_interval(correct: Correct, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of an accuracy, as shares (low, high).

    `correct` (problems,) of 0 and 1. Unlike accuracy ± standard error it says something where all
    answers are right (Table 4 has 100.00 ± 0.00). Raises `ValueError` for no problem, and for what is
    neither right nor wrong.
    """
    right = as_numbers("correct", correct)
    if not np.isin(right, (0, 1)).all():
        raise ValueError("correct holds other numbers than 0 and 1: give whether each answer is right.")
    check_number("confidence", confidence, 0, 0.9999)
    from scipy import stats  # which takes a second

    test = stats.binomtest(int(right.sum()), right.size)
    low, high = test.proportion_ci(confidence_level=confidence, method="wilson")
    return float(low), float(high)


def mcnemar(a: Correct, b: Correct, problems: Sequence | None = None) -> float:
    """McNemar's exact two-sided p that `a` and `b` (problems,) are right equally often.

    Only the discordant problems count: where one method is right and the other is not, either is as
    likely under the null hypothesis. 1.0 where there are none. `problems` (pairs,) names the problem
    of each pair; one that comes several times counts once, for the method that is right more often.
    """
    gains, _ = _gains(a, b, problems)
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    from scipy import stats

    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def paired_standard_error(a: Correct, b: Correct, problems: Sequence | None = None) -> float:
    """Standard error of the mean of a - b (problems,), as a share; `problems` as in `mcnemar`.

    Pairs of one problem are one unit, as the errors of their answers need not be independent.
    """
    gains, sizes = _gains(a, b, problems)
    mean = gains.sum() / sizes.sum()
    return float(math.sqrt(((gains - mean * sizes) ** 2).sum()) / sizes.sum())


def paired_bootstrap(
    a: Correct,
    b: Correct,
    num_resamples: int = 10_000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    problems: Sequence | None = None,
) -> tuple[float, float, float, float]:
    """Resamples problems: mean of a - b (problems,), its interval and p: (difference, low, high, p).

    The interval is the percentile one. p is two-sided: twice the share of resampled differences on
    the rarer side of zero, zero itself counted on both, the observed sample counted as a resample,
    and at most 1. So it is never 0, and 1 where the methods agree on every problem. `problems` as in
    `mcnemar`: pairs of one problem are drawn together. Raises `ValueError` for arguments that are none.
    """
    check_whole("num_resamples", num_resamples, 1)
    check_whole("seed", seed, 0)
    check_number("confidence", confidence, 0, 0.9999)
    gains, sizes = _gains(a, b, problems)
    # Few different (gain, size) occur, so it is enough to draw how often each does.
    kinds, counts = np.unique(np.column_stack([gains, sizes]), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(gains), counts / len(gains), size=num_resamples)
    sums, totals = (drawn @ kinds).T
    tail = (1 - confidence) / 2
    low, high = np.quantile(sums / totals, [tail, 1 - tail])
    rarer = min((sums <= 0).sum(), (sums >= 0).sum())
    p = min(1.0, 2 * (1 + rarer) / (1 + num_resamples))
    return float(gains.sum() / sizes.sum()), float(low), float(high), float(p)


def _gains(a: Correct, b: Correct, problems: Sequence | None) -> tuple[np.ndarray, np.ndarray]:
    """Per problem how often more `a` is right than `b`, and how many pairs it has; both (problems,)."""
    first, second = as_numbers("a", a), as_numbers("b", b)
    if first.shape != second.shape:
        raise ValueError(
            f"paired methods need one answer each per problem, in one order: the shapes are "
            f"{first.shape} and {second.shape}."
        )
    if problems is None:
        return first - second, np.ones(len(first))
    unit = _units(problems, len(first))
    return np.bincount(unit, first - second), np.bincount(unit).astype(float)


def _units(problems: Sequence, num: int) -> np.ndarray:
    """The number of each answer's problem, (answers,)."""
    names = np.asarray(problems, dtype=object)
    if names.shape != (num,) or pd.isna(names).any():
        raise ValueError(f"problems does not name the problem of each of {num} answers: give one each.")
    return pd.factorize(names)[0]


def holm(p_values: Sequence[float] | np.ndarray | pd.Series) -> np.ndarray:
    """Holm's step-down correction of (tests,) p values for having made them all, in the same order.

    The chance of even one false "significant" stays below the level. nan stands for a test that was
    not made: it stays nan and counts for nothing. Raises `ValueError` for what is no p value.
    """
    p = as_numbers("p_values", p_values, least=0, nan=True)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"holm: p values lie between 0 and 1, but one is {p[(p < 0) | (p > 1)][0]}.")
    order = np.argsort(p, kind="stable")  # nan last
    order = order[: int((~np.isnan(p)).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def compare(
    scores: pd.DataFrame,
    baselines: Sequence[str] | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Is a lead more than luck? Each method of each task against the task's strongest baseline.

    `scores` has `method`, `task`, `seed`, `problem` and `correct`, for one iteration of each method;
    methods are paired on seed and problem. The result has a row per task and method: `baseline`,
    `accuracy` (%), `difference` (points), its `standard_error`, `low` and `high` (bootstrap), `p`
    (McNemar), `p_holm` (corrected over the whole table), `significant` (at 0.05) and `problems`.

    The baseline is the most accurate of `baselines`, the first of them where several are; their own
    rows are empty, as they claim nothing. With None each method is held against the best of all the
    others. As it is chosen on the same answers, a lead over it is, if anything, understated. Raises
    `ValueError` for scores that cannot be paired, and for a baseline that is not among them.
    """
    _check_scores(scores, baselines)
    rows: list[dict] = []
    for task, part in scores.groupby("task", sort=False):
        answers = _paired_answers(str(task), part)
        percent = 100 * answers.mean()
        for method in answers:
            rival = None if method in (baselines or ()) else _strongest(percent, method, baselines)
            row = {"task": task, "method": method, "baseline": rival, "accuracy": percent[method]}
            if rival is not None:
                row |= _difference(answers[method], answers[rival], num_resamples, seed, confidence)
            rows.append({**row, "problems": answers.index.get_level_values("problem").nunique()})
    columns = ["task", "method", "baseline", "accuracy", "difference", "standard_error", "low", "high"]
    table = pd.DataFrame(rows, columns=[*columns, "p", "problems"])
    table["baseline"] = table.baseline.astype(object).where(table.baseline.notna(), None)
    table.insert(9, "p_holm", holm(table.p))
    table.insert(10, "significant", table.p_holm < SIGNIFICANCE_LEVEL)
    return table


def _strongest(accuracy: pd.Series, method: str, baselines: Sequence[str] | None) -> str | None:
    others = accuracy.index if baselines is None else [b for b in baselines if b in accuracy.index]
    rivals = accuracy[[name for name in others if name != method]]
    return None if rivals.empty else str(rivals.idxmax())


def _difference(a: pd.Series, b: pd.Series, num_resamples: int, seed: int, confidence: float) -> dict:
    problems = a.index.get_level_values("problem")
    difference, low, high, _ = paired_bootstrap(
        a, b, num_resamples, seed, confidence=confidence, problems=problems
    )
    error = paired_standard_error(a, b, problems)
    points = {"difference": difference, "standard_error": error, "low": low, "high": high}
    return {**{name: 100 * share for name, share in points.items()}, "p": mcnemar(a, b, problems)}


def _check_scores(scores: pd.DataFrame, baselines: Sequence[str] | None) -> None:
    check_columns("compare: scores", scores, ("method", "task", "seed", "problem", "correct"))
    check_numbers("scores", scores, ("correct",))
    if baselines is not None:
        check_each("baselines", baselines, str, least=0)
    unknown = sorted(set(baselines or ()) - set(scores.method))
    if unknown:
        known = ", ".join(map(str, scores.method.unique()))
        raise ValueError(f"compare: no scores of the baseline {unknown[0]!r}; there are {known}.")


def _paired_answers(task: str, part: pd.DataFrame) -> pd.DataFrame:
    """Correctness of one task, a row per (seed, problem) and a column per method."""
    if part.duplicated(["method", "seed", "problem"]).any():
        row = part[part.duplicated(["method", "seed", "problem"])].iloc[0]
        raise ValueError(
            f"compare: {row.method!r} on {task!r} answers problem {str(row.problem)!r} of seed "
            f"{row.seed} more than once; keep one model and one iteration of each method."
        )
    answers = part.pivot(index=["seed", "problem"], columns="method", values="correct")
    answers = answers[list(part.method.unique())]
    short = answers.columns[answers.isna().any()]
    if len(short):
        raise ValueError(
            f"compare: on {task!r} {short[0]!r} lacks {answers[short[0]].isna().sum()} of the "
            f"{len(answers)} problems that the others answer; run all with the same seeds and num_eval."
        )
    return answers.astype(float)


def spread_over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """How much of the scatter is the seed and how much the problems: a row per method, task, iteration.

    `frame` is one of scores: `method`, `task`, `iteration`, `seed`, `correct`. In percent: `mean` over
    the seeds' accuracies, `std_between_seeds` (nan for one seed) and `sampling_error`, the scatter to
    expect between seeds from drawing so many problems alone, the root mean square of the seeds' own
    standard errors. Where every seed draws its problems anew, training adds what the first exceeds the
    second by. Raises `ValueError` for a frame without these columns, and for one without rows.
    """
    check_columns("frame", frame, ("method", "task", "iteration", "seed", "correct"))
    keys = [k for k in ("method", "task", "model", "iteration") if k in frame]
    runs = frame.groupby([*keys, "seed"], sort=False).correct
    runs = runs.agg(accuracy=lambda c: 100 * c.mean(), variance=_variance, size="size").reset_index()
    table = runs.groupby(keys, sort=False).agg(
        mean=("accuracy", "mean"),
        std_between_seeds=("accuracy", "std"),
        sampling_error=("variance", lambda v: math.sqrt(v.mean())),
        seeds=("seed", "size"),
        problems=("size", "mean"),
    )
    return table.reset_index()


def _variance(correct: pd.Series) -> float:
    return (100 * standard_error(correct)) ** 2


def standard_errors_apart(a: float, error_a: float, b: float, error_b: float) -> float:
    """(a - b) over the standard error of the difference of two *independent* accuracies.

    For numbers from different problems, such as ours and the published ones; nan where an error is
    missing or both are 0. Beyond 2 either way chance is a poor explanation.
    """
    given = as_numbers("accuracies and their errors", [a, error_a, b, error_b], nan=True)
    a, error_a, b, error_b = map(float, given)
    error = math.hypot(error_a, error_b)
    return (a - b) / error if error > 0 else math.nan
