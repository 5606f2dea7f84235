"""Measures of diversity (Section 4.2, Appendix C), of finished debates and a scorer.

Each measure returns a tidy frame: `problem`, `value` and what else tells its rows apart. A problem
that says nothing (a single response to compare) has the value nan. `by_iteration` runs a measure over
a study, `mean_over_problems` takes means with standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maft_lib.arguments import check_able, check_columns, check_debates, check_each, check_text
from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct, is_equivalent
from maft_lib.metrics.likelihoods import (
    kl_by_own_likelihoods,
    kl_divergence,
    kl_from_base,
    negative_log_likelihood,
    off_diagonal_mean,
)
from maft_lib.metrics.statistics import standard_error, standard_error_of_mean
from maft_lib.seeds import derive_seed
from maft_lib.society import Society
from maft_lib.tasks.worked import style_of
from maft_lib.voting import majority_vote

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer

__all__ = [
    "by_iteration",
    "consensus",
    "disagreement",
    "distinct_styles",
    "embedding_dissimilarity",
    "flips",
    "follows_majority",
    "kl_by_own_likelihoods",
    "kl_divergence",
    "kl_from_base",
    "knows_styles",
    "mean_over_problems",
    "negative_log_likelihood",
    "style_separation",
]

Measure = Callable[[Sequence[Debate], Society], pd.DataFrame]


def by_iteration(results: Sequence[Any], measure: Measure, column: str = "value") -> pd.DataFrame:
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


def _run(result: Any) -> dict:
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


def disagreement(debates: Sequence[Debate], number: int = -1, seed: int = 0) -> pd.DataFrame:
    """1 - consensus (C.1): the share of agents, 0 to 1, whose answer in a round is not its vote.

    `number` is the round, from 0; the last by default, whose vote is the debate's. For the single-agent
    method the authors take three answers without a debate and their vote, which is `number=0`, its ties
    broken by `seed`. An unreadable answer agrees with nothing. This measure, like all of them, raises
    `ValueError` for no debates and for a round that there was not.
    """
    check_debates(debates, number)
    rows = []
    for debate in debates:
        answers, vote = _answers(debate, number), _vote(debate, number, seed)
        agreeing = sum(is_equivalent(answer, vote, debate.problem.task) for answer in answers)
        rows.append((debate.problem.id, 1 - agreeing / len(answers)))
    return pd.DataFrame(rows, columns=["problem", "value"])


def consensus(debates: Sequence[Debate]) -> float:
    """The share of agents (0 to 1) whose last answer is the vote, averaged over problems (C.1)."""
    return float(1 - disagreement(debates).value.mean())


def _answers(debate: Debate, number: int) -> list[str | None]:
    return [answers[number] for answers in debate.answers]


def _vote(debate: Debate, number: int, seed: int) -> str | None:
    if number in (-1, len(debate.turns[0]) - 1):
        return debate.vote
    tie = derive_seed(seed, debate.problem.id, "vote", number)
    return majority_vote(_answers(debate, number), debate.problem.task, tie)


def flips(debates: Sequence[Debate]) -> pd.DataFrame:
    """How answers move between rounds: a row per agent, problem and step from a round to the next.

    `round` is the earlier one (from 1), `before` and `after` are `right` or `wrong`, an unreadable
    answer being wrong. `pd.crosstab(f.before, f.after, normalize=True)` is the flip matrix.
    """
    check_debates(debates)
    rows = [
        (debate.problem.id, agent + 1, number + 1, *(_verdict(a, debate) for a in step))
        for debate in debates
        for agent, answers in enumerate(debate.answers)
        for number, step in enumerate(zip(answers, answers[1:]))
    ]
    return pd.DataFrame(rows, columns=["problem", "agent", "round", "before", "after"])


def _verdict(answer: str | None, debate: Debate) -> str:
    return "right" if is_correct(answer, debate.problem) else "wrong"


def follows_majority(debates: Sequence[Debate]) -> pd.DataFrame:
    """Whether a critic takes over what most of the others said, where it had said something else.

    A row per agent, problem and round in which more than half of the *other* agents gave one answer in
    the round before, and the agent itself did not: `majority` is `right` or `wrong`, `value` is 1 where
    the agent's new answer is theirs. Unreadable answers count among the others.
    """
    check_debates(debates)
    rows = []
    for debate in debates:
        task = debate.problem.task
        for agent, answers in enumerate(debate.answers):
            for number, (before, after) in enumerate(zip(answers, answers[1:])):
                theirs = _majority_of_others(debate, agent, number)
                if theirs is not None and not is_equivalent(before, theirs, task):
                    followed = float(is_equivalent(after, theirs, task))
                    row = (debate.problem.id, agent + 1, number + 1, _verdict(theirs, debate), followed)
                    rows.append(row)
    return pd.DataFrame(rows, columns=["problem", "agent", "round", "majority", "value"])


def _majority_of_others(debate: Debate, agent: int, number: int) -> str | None:
    others = [answers[number] for k, answers in enumerate(debate.answers) if k != agent]
    groups = group_equivalent(others, debate.problem.task)
    largest = max(groups, key=len, default=[])
    return others[largest[0]] if 2 * len(largest) > len(others) else None


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
