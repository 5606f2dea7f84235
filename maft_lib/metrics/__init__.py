"""Measures of finished debates, as tidy data frames: what is right, and what it cost.

A frame of scores has one row per (method, task, model, seed, iteration, problem); `trained_on` stands
beside `task`, which is tested, where the two differ. An answer that cannot be read is wrong and stays
in the denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any

import pandas as pd

from maft_lib.backends import SPENT, Completion
from maft_lib.debate import Debate, contradicts_itself, majority_vote
from maft_lib.grading import extract_answer, is_correct
from maft_lib.metrics.statistics import mean_over_problems, standard_error
from maft_lib.seeds import derive_seed

Pick = Callable[[Debate], str | None]
final_vote: Pick = attrgetter("vote")
RUN = ["method", "task", "model", "seed", "iteration"]
TOKENS = ["num_prompt_tokens", "num_completion_tokens", "num_training_tokens"]
COSTS = ["num_calls", "num_cut", "num_updates", *TOKENS, "seconds"]


def first_answer(debate: Debate) -> str | None:
    """Base: what the first generation agent answers, alone."""
    return debate.answers[0][0]


def first_vote(debate: Debate, seed: int = 0) -> str | None:
    """Majority: the vote over the first answers of all agents, ties broken by the run's seed."""
    firsts = [answers[0] for answers in debate.answers]
    return majority_vote(
        firsts, debate.problem.task, derive_seed(seed, debate.problem.id, "first vote")
    )


def scores(debates: Sequence[Debate], pick: Pick = final_vote) -> pd.DataFrame:
    """One row per problem: `problem`, `answer`, `readable`, `correct`, and two diagnostics.

    `first_correct` and `last_correct` are the shares of agents whose first and last answer is right;
    `num_tokens` counts what the whole debate generated.
    """
    rows = []
    for debate in debates:
        problem, answer = debate.problem, pick(debate)
        right = [[is_correct(own[n], problem) for own in debate.answers] for n in (0, -1)]
        row = (problem.id, answer, answer is not None, is_correct(answer, problem))
        rows.append((*row, *(sum(r) / len(r) for r in right), debate.num_completion_tokens))
    names = ["problem", "answer", "readable", "correct", "first_correct", "last_correct"]
    return pd.DataFrame(rows, columns=[*names, "num_tokens"])


def by_round(debates: Sequence[Debate], seed: int = 0) -> pd.DataFrame:
    """One row per problem: whether the vote after each round is right, and what stands behind it.

    `vote_1`, `vote_2`, ... are the rounds; `oracle_1`, ... say whether any agent's answer is right
    (pass@N), which no vote can exceed. `corrected` and `spoiled` are the shares of critics' turns that
    make a wrong answer right and a right one wrong, `contradictory` is the share of final responses
    whose last step has another result than the answer in their box.
    """
    rows = []
    for debate in debates:
        problem, answers = debate.problem, debate.answers
        right = [[is_correct(answer, problem) for answer in own] for own in answers]
        turns = list(chain.from_iterable(map(pairwise, right)))
        odd = [contradicts_itself(own[-1], problem.task) for own in debate.turns]
        row: dict[str, Any] = {"problem": problem.id, "contradictory": sum(odd) / len(odd)}
        for number, said in enumerate(zip(*answers), start=1):
            drawn = derive_seed(seed, problem.id, "vote of round", number)
            vote = (
                debate.vote if number == len(answers[0]) else majority_vote(said, problem.task, drawn)
            )
            row[f"vote_{number}"] = is_correct(vote, problem)
            row[f"oracle_{number}"] = any(own[number - 1] for own in right)
        if turns:
            row["corrected"] = sum(after > before for before, after in turns) / len(turns)
            row["spoiled"] = sum(after < before for before, after in turns) / len(turns)
        rows.append(row)
    return pd.DataFrame(rows)


def per_iteration(result: Any) -> pd.DataFrame:
    """All columns of a study's result: a row per iteration, shares in percent.

    Those of `accuracy` and the means of `by_round`; `labels_right`, the share of right last responses
    in the data that the iteration learned from; the `examples`, updates and tokens that its training
    took, and the tokens generated for its data and answers. `best` and `last` mark iterations; the best
    one is chosen on the eval problems themselves, so its accuracy is too high.
    """
    table = accuracy(result.frame)
    seed, truths = (
        result.config.seed,
        {d.problem.id: d.problem for part in result.training for d in part},
    )
    behind = [by_round(debates, seed).drop(columns="problem").mean() for debates in result.evaluations]
    table = table.join(pd.DataFrame(behind).astype(float) * 100)
    for number, data in enumerate(result.data, start=1):
        pairs = [part if isinstance(part, tuple) else ([part], []) for part in data]
        learned = [example for pair in pairs for example in (*pair[0], *pair[1])]
        right = [_is_right(e.messages[-1]["content"], truths[e.problem_id]) for e in learned]
        at = table.index[min(number, len(table) - 1)]
        table.loc[at, ["examples", "labels_right"]] = len(right), 100 * sum(right) / max(len(right), 1)
    spent = result.costs.groupby("iteration")[["num_updates", *TOKENS[1:]]].sum()
    table = table.merge(spent, "left", on="iteration")
    return table.assign(best=table.accuracy == table.accuracy.max(), last=table.index == len(table) - 1)


def _is_right(response: str, problem: Any) -> bool:
    return is_correct(extract_answer(response, problem.task, problem.options), problem)


def _run(frame: pd.DataFrame, *without: str) -> list[str]:
    """The columns that tell runs apart, without some."""
    return [key for key in (*RUN, "trained_on") if key in frame and key not in without]


def accuracy(frame: pd.DataFrame, pool_seeds: bool = False) -> pd.DataFrame:
    """Accuracy and standard error in percent of each run in a frame of scores.

    `pool_seeds` takes the answers of all seeds together; each problem still counts once in the error.
    """
    keys = _run(frame, "seed") if pool_seeds else _run(frame)
    rows = [
        {
            **dict(zip(keys, run)),
            "accuracy": 100 * part.correct.mean(),
            "standard_error": 100 * standard_error(part.correct, part.problem),
            "first_answers": 100 * part.first_correct.mean(),
            "last_answers": 100 * part.last_correct.mean(),
            "unreadable": 100 * (1 - part.readable.mean()),
            "problems": part.problem.nunique(),
        }
        for run, part in frame.groupby(keys, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows)


def last_iteration(frame: pd.DataFrame) -> pd.DataFrame:
    """The scores of each run after its last iteration.

    Seeds that stop at different ones, as STaR's, are all put under the highest number, to be pooled.
    """
    keys = _run(frame, "model", "iteration")
    own = frame.groupby(keys, dropna=False).iteration.transform("max")
    highest = frame.groupby([k for k in keys if k != "seed"], dropna=False).iteration.transform("max")
    return frame.assign(iteration=highest)[frame.iteration == own]


def accuracy_over_seeds(frame: pd.DataFrame, column: str = "correct") -> pd.DataFrame:
    """Mean over seeds of a column of a frame of scores in percent, and its standard error.

    With one seed it is the sampling error over problems.
    """
    keys = _run(frame, "seed")
    table = mean_over_problems(frame.astype({column: float}), keys, column).drop(columns="problems")
    seeds = frame.groupby(keys, sort=False, dropna=False).seed.nunique().to_numpy()
    return (table.set_index(keys) * 100).reset_index().assign(seeds=seeds)


def spent(records: Sequence[Debate] | Sequence[Completion]) -> dict[str, float]:
    """What debates or completions cost: calls, tokens read and written, seconds of a worker or device.

    `num_cut` counts the responses that ran into the limit of new tokens.
    """
    return {name: sum(getattr(record, name) for record in records) for name in SPENT}


def cost_frame(rows: Sequence[dict]) -> pd.DataFrame:
    """Costs as a frame: `seconds` as first measured, summed over workers; `peak_memory` in bytes."""
    frame = pd.DataFrame(rows).reindex(columns=["iteration", "phase", "agent", *COSTS, "peak_memory"])
    return frame.fillna(dict.fromkeys(COSTS, 0))


def counts(costs: pd.DataFrame) -> pd.DataFrame:
    """The costs of each method (its index) that are the same in every run: all but time and memory."""
    names = ["calls", "tokens read", "tokens written", "tokens trained on"]
    totals = costs.groupby("method", sort=False)[["num_calls", *TOKENS]].sum().astype(int)
    return totals.set_axis(names, axis=1)
