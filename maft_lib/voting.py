"""The majority vote over final answers (Section 2.1). Knows answers, not who gave them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from maft_lib.arguments import check_whole
from maft_lib.grading import group_equivalent, is_equivalent


def majority_vote(answers: Sequence[str | None], task: str, seed: int) -> str | None:
    """The answer that most agents gave, under mathematical equivalence; None if none can be read.

    Unreadable answers do not vote. A tie is broken at random by the seed, whatever the order of the
    answers (Section 3.2: "one of the potential answers is chosen at random"). Raises `ValueError` for
    answers that are no list of texts, and `DataError` for an unknown task.
    """
    check_whole("seed", seed)
    groups = [[answers[i] for i in group] for group in group_equivalent(answers, task)]
    if not groups:
        return None
    most = max(len(group) for group in groups)
    tied = sorted(_speaker(group, task) for group in groups if len(group) == most)
    return random.Random(seed).choice(tied)


def _speaker(group: list[str | None], task: str) -> str:
    """The answer that stands for its group: equal to most of the others, then the shortest."""
    given = [answer for answer in group if answer is not None]
    if len(set(given)) == 1:
        return given[0]

    def rank(answer: str) -> tuple[int, int, str]:
        return -sum(is_equivalent(answer, other, task) for other in given), len(answer), answer

    return min(given, key=rank)
