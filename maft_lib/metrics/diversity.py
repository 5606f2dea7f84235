"""Measures of diversity (Section 4.2, Appendix C), of finished debates and a scorer.

Each measure returns a tidy frame: `problem`, `value` and what else tells its rows apart. A problem
that says nothing (a single response to compare) has the value nan. `number` is a round, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from maft_lib.backends import Message
from maft_lib.debate import Debate, majority_vote
from maft_lib.grading import group_equivalent, is_correct, is_equivalent
from maft_lib.metrics.statistics import standard_error, standard_error_of_mean
from maft_lib.seeds import derive_seed
from maft_lib.society import Society
from maft_lib.tasks.worked import style_of

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer

Measure = Callable[[Sequence[Debate], Society], pd.DataFrame]
Role = Literal["generator", "critic"]


def by_iteration(results: Sequence[Any], measure: Measure, column: str = "value") -> pd.DataFrame:
    """Mean and standard error of a measure after each iteration of each study's result.

    `measure` takes the debates on the eval problems and the society that held them. The rows have
    `method`, `task` (tested), `trained_on` where it differs, `iteration`, `mean`, `error`, `problems`.
    """
    frames = []
    for result in results:
        first = result.frame.iloc[0]
        run = {**first[["method", "task", "seed"]], "trained_on": first.get("trained_on")}
        for number, (society, debates) in enumerate(zip(result.societies, result.evaluations)):
            frames.append(measure(debates, society).assign(**run, iteration=number))
    frame = pd.concat(frames, ignore_index=True)
    keys = [key for key in ("method", "task", "trained_on", "iteration") if frame[key].notna().any()]
    return mean_over_problems(frame, keys, column)


def mean_over_problems(frame: pd.DataFrame, keys: Sequence[str], column: str = "value") -> pd.DataFrame:
    """`mean`, `error` and `problems` (that have a value) of a column for each value of `keys`.

    Rows of one problem are averaged first. The error is the standard error over problems (nan for a
    single one); with several seeds it is that of the mean over seeds.
    """
    rows = []
    for names, part in frame.groupby(list(keys), sort=False, dropna=False):
        seeds = part.seed if "seed" in part else pd.Series(0, index=part.index)
        single = part.groupby([seeds, "problem"])[column].mean().dropna()
        means = single.groupby(level=0).mean()
        over_problems = len(means) == 1 < len(single)
        error = standard_error(single) if over_problems else standard_error_of_mean(means)
        problems = single.index.get_level_values("problem").nunique()
        rows.append([*names, means.mean(), error, problems])
    return pd.DataFrame(rows, columns=[*keys, "mean", "error", "problems"])


def _per_problem(debates: Sequence[Debate], values: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({"problem": [debate.problem.id for debate in debates], "value": values})


def disagreement(debates: Sequence[Debate], number: int = -1, seed: int = 0) -> pd.DataFrame:
    """1 - consensus (C.1): the share of agents, 0 to 1, whose answer in a round is not its vote.

    For the single-agent method the authors take three answers without a debate and their vote, which
    is `number=0`, its ties broken by `seed`. An unreadable answer agrees with nothing.
    """
    values = []
    for debate in debates:
        answers, vote, task = [own[number] for own in debate.answers], debate.vote, debate.problem.task
        if number not in (-1, len(debate.turns[0]) - 1):
            tie = derive_seed(seed, debate.problem.id, "vote", number)
            vote = majority_vote(answers, task, tie)
        agreeing = sum(is_equivalent(answer, vote, task) for answer in answers)
        values.append(1 - agreeing / len(answers))
    return _per_problem(debates, values)


def consensus(debates: Sequence[Debate]) -> float:
    """The share of agents (0 to 1) whose last answer is the vote, averaged over problems (C.1)."""
    return float(1 - disagreement(debates).value.mean())


def flips(debates: Sequence[Debate]) -> pd.DataFrame:
    """Whether answers are `right` or `wrong` `before` and `after` a step from a `round` to the next.

    A row per agent, problem and step; `round` is the earlier one (from 1).
    """
    rows = [
        (debate.problem.id, agent, number, *(_verdict(answer, debate) for answer in step))
        for debate in debates
        for agent, answers in enumerate(debate.answers, start=1)
        for number, step in enumerate(zip(answers, answers[1:]), start=1)
    ]
    return pd.DataFrame(rows, columns=["problem", "agent", "round", "before", "after"])


def _verdict(answer: str | None, debate: Debate) -> str:
    return "right" if is_correct(answer, debate.problem) else "wrong"


def follows_majority(debates: Sequence[Debate]) -> pd.DataFrame:
    """Whether a critic takes over what most of the others said, where it had said something else.

    A row per agent, problem and round in which more than half of the *other* agents gave one answer
    and the agent itself did not: `majority` is `right` or `wrong`, `value` is 1 where the agent's next
    answer is theirs.
    """
    rows = []
    for debate in debates:
        task, problem = debate.problem.task, debate.problem.id
        for agent, answers in enumerate(debate.answers):
            for number, (before, after) in enumerate(zip(answers, answers[1:])):
                others = [own[number] for k, own in enumerate(debate.answers) if k != agent]
                largest = max(group_equivalent(others, task), key=len, default=[])
                theirs = others[largest[0]] if 2 * len(largest) > len(others) else None
                if theirs is not None and not is_equivalent(before, theirs, task):
                    followed = float(is_equivalent(after, theirs, task))
                    rows.append((problem, agent + 1, number + 1, _verdict(theirs, debate), followed))
    return pd.DataFrame(rows, columns=["problem", "agent", "round", "majority", "value"])


def negative_log_likelihood(
    debates: Sequence[Debate],
    society: Society,
    scorer: Scorer,
    role: Role = "critic",
    context: Literal["speaker", "listener"] = "speaker",
) -> pd.DataFrame:
    """How unlikely an agent finds what the others said (Section 4.2), in nats.

    A row per problem, `listener` (the held-out agent) and `speaker`, with the negative log-likelihood
    of the speaker's response under the listener's model `per_token` (also `value`) and `per_response`.
    `role` is `critic`, for last responses, or `generator`, for first ones.

    The paper does not say what the held-out agent reads before the response. `speaker`: what the
    speaker had read, so that a difference comes from the models alone and not from their
    conversations; `listener`: the held-out agent's own conversation, as if it were about to speak
    itself. Raises `ValueError` for critics where there was no second round.
    """
    pairs = list(permutations(range(len(society.generators)), 2))
    rows = [(debate.problem.id, k + 1, n + 1) for debate in debates for k, n in pairs]
    frame = pd.DataFrame(rows, columns=["problem", "listener", "speaker"])
    asked = [(d, k, k if context == "listener" else n, n) for d in debates for k, n in pairs]
    scores = _log_likelihoods(asked, society, scorer, role)
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
    `max_tokens` and their text is tokenized as it was drawn. A row per problem, `listener` k and
    `speaker` n. The paper's own measure (C.2) asks a third model instead: `kl_divergence`.
    """
    others = negative_log_likelihood(debates, society, scorer, role)
    asked = [(d, n, n, n) for d in debates for n in range(len(society.generators))]
    scores = _log_likelihoods(asked, society, scorer, role)
    own = {(d.problem.id, n + 1): -sum(tokens) for (d, n, *_), tokens in zip(asked, scores)}
    spoken = [own[place] for place in zip(others.problem, others.speaker)]
    return others[["problem", "listener", "speaker"]].assign(value=others.per_response - spoken)


def _log_likelihoods(
    asked: Sequence[tuple[Debate, int, int, int]], society: Society, scorer: Scorer, role: Role
) -> list[list[float]]:
    """Of (debate, listener, reader, speaker): the speaker's tokens after what the reader had read."""
    if role == "critic" and any(len(debate.turns[0]) < 2 for debate, *_ in asked):
        raise ValueError("critics speak from the second round on: with num_rounds 1 ask generators.")
    agents = society.generators if role == "generator" else society.critics
    number, end = (0, 1) if role == "generator" else (-1, -1)
    conversations: list[list[Message]] = []
    for debate, _, reader, speaker in asked:
        spoken: Message = {"role": "assistant", "content": debate.turns[speaker][number].response}
        conversations.append([*debate.conversation(reader)[:end], spoken])
    return scorer.log_likelihoods([agents[listener].model for _, listener, *_ in asked], conversations)


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
    matrices = scorer.divergences(model, _questions(debates), spoken)
    return _per_problem(debates, [_off_diagonal_mean(matrix) for matrix in matrices])


def kl_from_base(
    debates: Sequence[Debate], base: Sequence[Debate], scorer: Scorer, model: str, number: int = -1
) -> pd.DataFrame:
    """KL divergence of agents' responses from those of base agents, in nats, with one scorer (C.3).

    The estimator of `kl_divergence`, KL(P_agent || P_base), averaged over all pairs of an agent and a
    base agent. `base` are debates of the base society on the same problems, in any order; drawn from
    seeds of their own, they show at iteration 0 what two independent draws of one model give.
    """
    of_problem = {debate.problem.id: debate for debate in base}
    both = [(*debate.turns, *of_problem[debate.problem.id].turns) for debate in debates]
    spoken = [[turns[number].response for turns in agents] for agents in both]
    matrices = scorer.divergences(model, _questions(debates), spoken)
    values = [float(m[: len(d.turns), len(d.turns) :].mean()) for d, m in zip(debates, matrices)]
    return _per_problem(debates, values)


def _questions(debates: Sequence[Debate]) -> list[list[Message]]:
    """The problems as the first agent was asked them: what the scorer reads before a response."""
    return [[{"role": "user", "content": debate.turns[0][0].asked}] for debate in debates]


def embedding_dissimilarity(
    debates: Sequence[Debate],
    scorer: Scorer,
    encoder: str,
    pooling: str = "mean",
    agreeing: bool = True,
    number: int = -1,
) -> pd.DataFrame:
    """1 - cosine similarity of the agents' embedded responses, averaged over pairs (C.4): 0 to 2.

    Of the round's responses only those that agree with the vote count, unless `agreeing=False`.
    """
    spoken = []
    for debate in debates:
        vote, task, turns = debate.vote, debate.problem.task, [own[number] for own in debate.turns]
        counted = [t for t in turns if not agreeing or is_equivalent(t.answer, vote, task)]
        spoken.append([turn.response for turn in counted])
    vectors = _unit_vectors(scorer, encoder, [text for texts in spoken for text in texts], pooling)
    own = np.split(vectors, np.cumsum([len(texts) for texts in spoken])[:-1])
    return _per_problem(debates, [_off_diagonal_mean(1 - v @ v.T) for v in own])


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    """The mean over pairs of different responses (responses, responses); nan where there is none."""
    off = np.logical_not(np.eye(*matrix.shape))
    return float(matrix[off].mean()) if off.any() else float("nan")


def _unit_vectors(scorer: Scorer, encoder: str, texts: list[str], pooling: str) -> np.ndarray:
    if not texts:
        return np.empty((0, 1))
    vectors = scorer.embeddings(encoder, texts, pooling)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def knows_styles(debates: Sequence[Debate]) -> bool:
    """Whether any first response reasons in a style that is known of its problem."""
    return any(style is not None for debate in debates for style in _styles(debate, 0))


def _styles(debate: Debate, number: int) -> list[int | None]:
    return [style_of(turns[number].response, debate.problem.styles) for turns in debate.turns]


def distinct_styles(debates: Sequence[Debate], number: int = -1) -> pd.DataFrame:
    """Known styles of reasoning among the agents' responses of a round, over the number of agents."""
    found = [set(_styles(debate, number)) - {None} for debate in debates]
    values = [len(own) / len(d.turns) if own else np.nan for own, d in zip(found, debates)]
    return _per_problem(debates, values)


def style_separation(
    debates: Sequence[Debate], scorer: Scorer, encoder: str, pooling: str = "mean"
) -> float:
    """How well an encoder tells styles of reasoning apart: 0.5 is chance, 1 is perfect.

    The probability that of two pairs of first responses, each to one problem, the one in different
    styles is further apart than the one in the same (the area under the ROC curve); no equal texts.
    """
    from scipy import stats  # which takes a second

    texts = [turns[0].response for debate in debates for turns in debate.turns]
    vectors = _unit_vectors(scorer, encoder, texts, pooling)
    owners = [(debate.problem.id, style) for debate in debates for style in _styles(debate, 0)]
    known = pd.DataFrame(owners, columns=["problem", "style"]).dropna()
    apart: dict[bool, list[float]] = {True: [], False: []}
    for _, styles in known.groupby("problem")["style"]:
        for i, j in combinations(styles.index, 2):
            if texts[i] != texts[j]:
                apart[bool(styles[i] == styles[j])].append(float(1 - vectors[i] @ vectors[j]))
    pairs = len(apart[False]) * len(apart[True])
    return float(stats.mannwhitneyu(apart[False], apart[True]).statistic / pairs) if pairs else np.nan
