"""Styles of reasoning, where they are known: how many there are, and what an encoder sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maft_lib.arguments import check_able, check_debates
from maft_lib.debate import Debate
from maft_lib.tasks.worked import style_of

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer


def knows_styles(debates: Sequence[Debate]) -> bool:
    """Whether any first response reasons in a style that is known of its problem."""
    check_debates(debates)
    firsts = (
        (turns[0].response, debate.problem.styles) for debate in debates for turns in debate.turns
    )
    return any(style_of(*first) is not None for first in firsts)


def distinct_styles(debates: Sequence[Debate], number: int = -1) -> pd.DataFrame:
    """Different styles of reasoning among the agents' responses of a round, over the number of agents.

    From 1 / N, all alike, to 1; for problems whose styles are known, as the miniature tasks' are. A
    response in no known style counts for none; where none has one the value is nan. Raises `ValueError`
    if no response at all has (see `knows_styles`).
    """
    check_debates(debates, number)
    if not knows_styles(debates):
        raise ValueError(
            "distinct_styles: no response reasons in a known style; the miniature model's do, on the "
            "generated tasks arithmetic, mini_gsm, mini_math and mini_mmlu."
        )
    rows = []
    for debate in debates:
        found = {style_of(turns[number].response, debate.problem.styles) for turns in debate.turns}
        value = len(found - {None}) / len(debate.turns) if found != {None} else np.nan
        rows.append((debate.problem.id, value))
    return pd.DataFrame(rows, columns=["problem", "value"])


def style_separation(
    debates: Sequence[Debate], scorer: Scorer, encoder: str, pooling: str = "mean"
) -> float:
    """How well an encoder tells styles of reasoning apart: 0.5 is chance, 1 is perfect.

    The probability that of two pairs of first responses, each to one problem, the one in different
    styles is further apart than the one in the same (the area under the ROC curve); equal texts are
    left out. nan where there are not pairs of both kinds.
    """
    check_debates(debates)
    check_able("scorer", scorer, "embeddings", "what open_scorer(config) returns")
    known = [(d, [style_of(t[0].response, d.problem.styles) for t in d.turns]) for d in debates]
    texts = [turns[0].response for d, _ in known for turns in d.turns]
    vectors = scorer.embeddings(encoder, texts, pooling)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    owners = [(d.problem.id, style) for d, styles in known for style in styles]
    apart: dict[bool, list[float]] = {True: [], False: []}
    for i, j in _pairs_of_one_problem(owners):
        if texts[i] != texts[j]:
            apart[owners[i][1] == owners[j][1]].append(float(1 - vectors[i] @ vectors[j]))
    if not all(apart.values()):
        return float("nan")
    from scipy import stats  # which takes a second

    u = stats.mannwhitneyu(apart[False], apart[True]).statistic
    return float(u / (len(apart[False]) * len(apart[True])))


def _pairs_of_one_problem(owners: list[tuple[str, int | None]]) -> Iterator[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, (problem, style) in enumerate(owners):
        if style is not None:
            places.setdefault(problem, []).append(place)
    for own in places.values():
        yield from combinations(own, 2)
