"""Diversity by embeddings of responses (C.4). Asks a scorer, knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maft_lib.arguments import check_able, check_debates
from maft_lib.debate import Debate
from maft_lib.diversity.likelihoods import off_diagonal_mean
from maft_lib.grading import is_equivalent

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer


def embedding_dissimilarity(
    debates: Sequence[Debate],
    scorer: Scorer,
    encoder: str,
    pooling: str = "mean",
    agreeing: bool = True,
    number: int = -1,
) -> pd.DataFrame:
    """1 - cosine similarity of the agents' embedded responses, averaged over pairs (C.4): 0 to 2.

    Of the last round's responses only those that agree with the vote, as C.4 has it, or with
    `agreeing=False` all of them. A problem with fewer than two such responses has the value nan.
    """
    check_debates(debates, number)
    check_able("scorer", scorer, "embeddings", "what open_scorer(config) returns")
    spoken = [list(_responses(debate, agreeing, number)) for debate in debates]
    vectors = scorer.embeddings(encoder, [text for texts in spoken for text in texts], pooling)
    if not len(vectors):
        return pd.DataFrame({"problem": [d.problem.id for d in debates], "value": np.nan})
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = np.cumsum([len(texts) for texts in spoken])[:-1]
    own = np.split(vectors, ends)
    rows = [(d.problem.id, off_diagonal_mean(1 - v @ v.T)) for d, v in zip(debates, own)]
    return pd.DataFrame(rows, columns=["problem", "value"])


def _responses(debate: Debate, agreeing: bool, number: int) -> Iterator[str]:
    for turns in debate.turns:
        if not agreeing or is_equivalent(turns[number].answer, debate.vote, debate.problem.task):
            yield turns[number].response
