"""Diversity of final answers: consensus, flips between rounds, who follows whom. Knows no models."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from maft_lib.arguments import check_debates
from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct, is_equivalent
from maft_lib.seeds import derive_seed
from maft_lib.voting import majority_vote


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
