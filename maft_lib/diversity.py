"""Measures of diversity (Section 4.2, Appendix C), of finished debates and a scorer.

Each measure returns a tidy frame: `problem`, `value` and what else tells its rows apart. A problem
that says nothing (a single response to compare) has the value nan. `by_iteration` runs a measure over
a study, `mean_over_problems` takes means with standard errors. Knows no engine: what needs a model is
asked of `scorer` (see `backends.scorer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from maft_lib.debate import Agent, Debate, Society
from maft_lib.grading import group_equivalent, is_correct, is_equivalent
from maft_lib.prompts import Message
from maft_lib.seeds import derive_seed
from maft_lib.statistics import standard_error, standard_error_of_mean
from maft_lib.tasks.worked import style_of
from maft_lib.voting import majority_vote

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer
    from maft_lib.studies import Result

Measure = Callable[[Sequence[Debate], Society], pd.DataFrame]
Role = Literal["generator", "critic"]


# --- over a study --------------------------------------------------------------------------------


def by_iteration(results: Sequence[Result], measure: Measure, column: str = "value") -> pd.DataFrame:
    """Mean and standard error of a measure after each iteration of each study.

    `measure` takes the debates on the eval problems and the society that held them. The rows have
    `method`, `task` (that is tested), `iteration`, `trained_on` where some were trained on another
    task, and what `mean_over_problems` adds.
    """
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
    `problems` counts those that have a value.
    """
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


# --- answers -------------------------------------------------------------------------------------


def disagreement(debates: Sequence[Debate], number: int = -1, seed: int = 0) -> pd.DataFrame:
    """1 - consensus (C.1): the share of agents, 0 to 1, whose answer in a round is not its vote.

    `number` is the round, from 0; the last by default, whose vote is the debate's. For the single-agent
    method the authors take three answers without a debate and their vote, which is `number=0`, its ties
    broken by `seed`. An unreadable answer agrees with nothing.
    """
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


def knows_styles(debates: Sequence[Debate]) -> bool:
    """Whether any first response reasons in a style that is known of its problem."""
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


# --- likelihoods ---------------------------------------------------------------------------------


def negative_log_likelihood(
    debates: Sequence[Debate],
    society: Society,
    scorer: Scorer,
    role: Role = "critic",
    context: Literal["speaker", "listener"] = "speaker",
) -> pd.DataFrame:
    """How unlikely an agent finds what the others said (Section 4.2), in nats.

    Every agent is held out in turn: a row per problem, `listener` (the held-out agent) and `speaker`,
    with the negative log-likelihood of the speaker's response under the listener's model `per_token`
    (also `value`) and `per_response`. `role` is `critic`, for last responses, or `generator`, for first
    ones.

    The paper does not say what the held-out agent reads before the response. `speaker`: what the
    speaker had read, so that a difference comes from the models alone and not from their
    conversations; `listener`: the held-out agent's own conversation, as if it were about to speak
    itself. For the single agent the paper says "M = 1", which is `role="generator"`. Raises
    `ValueError` for an unknown role or context, and for critics where there was no second round.
    """
    if context not in ("speaker", "listener"):
        raise ValueError(f"context is speaker or listener, but it is {context!r}.")
    agents, places = (
        _agents(debates, society, role),
        list(permutations(range(len(debates[0].turns)), 2)),
    )
    asked = [(d, k, n) for d in debates for k, n in places]
    conversations = [_conversation(d, k if context == "listener" else n, n, role) for d, k, n in asked]
    scores = scorer.log_likelihoods([agents[k].model for _, k, _ in asked], conversations)
    return _nll_frame([(d.problem.id, k + 1, n + 1) for d, k, n in asked], scores)


def _nll_frame(rows: list[tuple], scores: list[list[float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["problem", "listener", "speaker"])
    frame["per_response"] = [-sum(tokens) for tokens in scores]
    frame["per_token"] = [-sum(tokens) / len(tokens) for tokens in scores]
    return frame.assign(value=frame.per_token)


def kl_by_own_likelihoods(
    debates: Sequence[Debate], society: Society, scorer: Scorer, role: Role = "critic"
) -> pd.DataFrame:
    """KL divergence between agents by their *own* likelihoods, in nats per response.

    KL(p_n || p_k), both after what the speaker n had read, is the mean of log p_n(y) - log p_k(y)
    over responses y of agent n. One response a problem makes an unbiased estimate, whose single
    values may be negative, if responses were drawn at temperature 1 and top_p 1, none was cut off at
    `max_tokens` and their text is tokenized as it was drawn. It needs the agents' weights. A row per
    problem, `listener` k and `speaker` n. The paper's own measure (C.2) asks a third model instead:
    `kl_divergence`.
    """
    others = negative_log_likelihood(debates, society, scorer, role)
    agents, numbers = _agents(debates, society, role), range(len(debates[0].turns))
    asked = [(d, n) for d in debates for n in numbers]
    conversations = [_conversation(d, n, n, role) for d, n in asked]
    scores = scorer.log_likelihoods([agents[n].model for _, n in asked], conversations)
    own = {(d.problem.id, n + 1): -sum(tokens) for (d, n), tokens in zip(asked, scores)}
    spoken = [own[place] for place in zip(others.problem, others.speaker)]
    return others[["problem", "listener", "speaker"]].assign(value=others.per_response - spoken)


def _agents(debates: Sequence[Debate], society: Society, role: Role) -> tuple[Agent, ...]:
    if role not in ("generator", "critic"):
        raise ValueError(f"role is generator or critic, but it is {role!r}.")
    if role == "critic" and len(debates[0].turns[0]) < 2:
        raise ValueError("critics speak from the second round on: with num_rounds 1 ask generators.")
    return society.generators if role == "generator" else society.critics


def _conversation(debate: Debate, listener: int, speaker: int, role: Role) -> list[Message]:
    """What `listener` had read, with the response of `speaker` at its end."""
    number = 0 if role == "generator" else -1
    asked = debate.conversation(listener)[: 2 if role == "generator" else None][:-1]
    return [*asked, {"role": "assistant", "content": debate.turns[speaker][number].response}]


def kl_divergence(
    debates: Sequence[Debate], scorer: Scorer, model: str, number: int = -1
) -> pd.DataFrame:
    """KL divergence between agents' response distributions, in nats, with one scorer (C.2).

    The paper leaves the estimator open. Here P_y is the next-token distribution of `model` after the
    problem, averaged over the places of response y; `value` is KL(P_y || P_y') averaged over all
    ordered pairs of the responses of a round. In expectation it is at least the divergence of the
    agents' mean token distributions, because KL is convex, and that one is at most the divergence of
    their response distributions, because a token is drawn from a response. So two draws of *one* agent
    give more than 0; how much depends on how much its own responses vary.
    """
    spoken = [[turns[number].response for turns in debate.turns] for debate in debates]
    matrices = scorer.divergences(model, [_question(d) for d in debates], spoken)
    rows = [(d.problem.id, _off_diagonal_mean(matrix)) for d, matrix in zip(debates, matrices)]
    return pd.DataFrame(rows, columns=["problem", "value"])


def kl_from_base(
    debates: Sequence[Debate], base: Sequence[Debate], scorer: Scorer, model: str, number: int = -1
) -> pd.DataFrame:
    """KL divergence of agents' responses from those of base agents, in nats, with one scorer (C.3).

    The estimator of `kl_divergence`, KL(P_agent || P_base), averaged over all pairs of an agent and a
    base agent. `base` are debates of the base society on the same problems, in any order; drawn from
    seeds of their own, they show at iteration 0 what two independent draws of one model give. Round 0
    is that of the generation agents, the last that of the critics. Raises `ValueError` if `base`
    lacks a problem.
    """
    of_problem = {debate.problem.id: debate for debate in base}
    missing = [d.problem.id for d in debates if d.problem.id not in of_problem]
    if missing:
        raise ValueError(f"kl_from_base: `base` lacks the problem {missing[0]}; debate it first.")
    spoken = [
        [turns[number].response for d in (debate, of_problem[debate.problem.id]) for turns in d.turns]
        for debate in debates
    ]
    matrices = scorer.divergences(model, [_question(d) for d in debates], spoken)
    rows = [
        (d.problem.id, float(matrix[: len(d.turns), len(d.turns) :].mean()))
        for d, matrix in zip(debates, matrices)
    ]
    return pd.DataFrame(rows, columns=["problem", "value"])


def _question(debate: Debate) -> list[Message]:
    """The problem as the first agent was asked it: what the scorer reads before a response."""
    return [{"role": "user", "content": debate.turns[0][0].asked}]


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    off = np.logical_not(np.eye(*matrix.shape))
    return float(matrix[off].mean()) if off.any() else float("nan")


# --- embeddings ----------------------------------------------------------------------------------


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
    spoken = [list(_responses(debate, agreeing, number)) for debate in debates]
    vectors = scorer.embeddings(encoder, [text for texts in spoken for text in texts], pooling)
    if not len(vectors):
        return pd.DataFrame({"problem": [d.problem.id for d in debates], "value": np.nan})
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = np.cumsum([len(texts) for texts in spoken])[:-1]
    own = np.split(vectors, ends)
    rows = [(d.problem.id, _off_diagonal_mean(1 - v @ v.T)) for d, v in zip(debates, own)]
    return pd.DataFrame(rows, columns=["problem", "value"])


def _responses(debate: Debate, agreeing: bool, number: int) -> Iterator[str]:
    for turns in debate.turns:
        if not agreeing or is_equivalent(turns[number].answer, debate.vote, debate.problem.task):
            yield turns[number].response


def style_separation(
    debates: Sequence[Debate], scorer: Scorer, encoder: str, pooling: str = "mean"
) -> float:
    """How well an encoder tells styles of reasoning apart: 0.5 is chance, 1 is perfect.

    The probability that of two pairs of first responses, each to one problem, the one in different
    styles is further apart than the one in the same (the area under the ROC curve); equal texts are
    left out. nan where there are not pairs of both kinds.
    """
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
    u = stats.mannwhitneyu(apart[False], apart[True]).statistic
    return float(u / (len(apart[False]) * len(apart[True])))


def _pairs_of_one_problem(owners: list[tuple[str, int | None]]) -> Iterator[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, (problem, style) in enumerate(owners):
        if style is not None:
            places.setdefault(problem, []).append(place)
    for own in places.values():
        yield from combinations(own, 2)
