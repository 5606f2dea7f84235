"""Numbers about numbers: standard errors. Knows no debates and no models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def standard_error(correct: Sequence[bool] | np.ndarray) -> float:
    """Standard error of an accuracy: std of the per-problem correctness / sqrt(problems).

    `correct` (problems,) of 0 and 1; the result is a share, not a percentage (Section 3.1).
    """
    values = np.asarray(correct, dtype=float)
    return float(values.std() / math.sqrt(len(values)))


def standard_error_of_mean(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean of independent repetitions (seeds,); nan for a single one."""
    numbers = np.asarray(values, dtype=float)
    return float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.nan
