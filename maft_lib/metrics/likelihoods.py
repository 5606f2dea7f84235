"""Diversity by likelihoods: the others' words, KL divergences. Asks a scorer, knows no engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from maft_lib.arguments import check_able, check_alike, check_choice, check_debates, check_kind
from maft_lib.debate import Debate
from maft_lib.prompts import Message
from maft_lib.society import Agent, Society

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer

Role = Literal["generator", "critic"]
ROLES, CONTEXTS = ("generator", "critic"), ("speaker", "listener")


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
    `ValueError` for an unknown role or context, for critics where there was no second round, and for a
    society with another number of agents than debated.
    """
    check_choice("context", context, CONTEXTS)
    check_able("scorer", scorer, "log_likelihoods", "what open_scorer(config) returns")
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
    check_choice("role", role, ROLES)
    check_kind("society", society, Society, ", the one that held the debates")
    if check_alike(debates) != len(society.generators):
        raise ValueError(
            f"society has {len(society.generators)} generation agents, but {len(debates[0].turns)} "
            "debated: give the society that held the debates."
        )
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
    check_debates(debates, number)
    check_able("scorer", scorer, "divergences", "what open_scorer(config) returns")
    spoken = [[turns[number].response for turns in debate.turns] for debate in debates]
    matrices = scorer.divergences(model, [_question(d) for d in debates], spoken)
    rows = [(d.problem.id, off_diagonal_mean(matrix)) for d, matrix in zip(debates, matrices)]
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
    check_debates(debates, number)
    check_debates(base, number, "base")
    check_able("scorer", scorer, "divergences", "what open_scorer(config) returns")
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


def off_diagonal_mean(matrix: np.ndarray) -> float:
    """The mean over pairs of different responses (responses, responses); nan where there is none."""
    off = np.logical_not(np.eye(*matrix.shape))
    return float(matrix[off].mean()) if off.any() else float("nan")
