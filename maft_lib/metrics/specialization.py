"""Appendix G: how agents that learn from what they got right come to prefer different topics.

First the mathematical model, equations 2 to 4, then the same quantities of a real society's debates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from maft_lib.debate import Debate, Turn
from maft_lib.grading import is_correct, is_equivalent
from maft_lib.tasks.problem import Problem
from maft_lib.tasks.worked import style_of

Topic = Literal["style", "subject", "level"]
TOPICS: tuple[Topic, ...] = ("style", "subject", "level")
AXES = {"topics": (-1,), "models": (-2,), "all": (-2, -1)}


# The mathematical model


def update(
    skills: np.ndarray,
    normalize_over: Literal["topics", "models", "all"] = "topics",
    fractions: np.ndarray | None = None,
) -> np.ndarray:
    """One iteration of finetuning: equation 2, then the normalisation that equation 3 divides by.

    `skills` (..., models, topics) and `fractions`, the topics' shares of what a model trains on.
    Appendix G says "across all models": with `normalize_over="models"` the skills of each topic sum to
    one over the models, with "all" those of all models and topics together.
    """
    if fractions is None:
        fractions = skills / skills.sum(axis=-1, keepdims=True)
    raised = skills * (1 + fractions)
    return raised / raised.sum(axis=AXES[normalize_over], keepdims=True)


def simulate(
    num_models: int,
    num_topics: int = 3,
    num_questions: int = 166,
    num_iterations: int = 5,
    seed: int = 0,
    *,
    first_step: Literal["fraction", "skills"] = "fraction",
    random_steps: Literal["first", "every"] = "first",
) -> np.ndarray:
    """Skills (iterations + 1, models, topics) of models that all begin at 1 / `num_topics`.

    In the first iteration a model is asked `num_questions` of each topic and answers a binomial number
    right: each topic's share of these is the fraction in equation 2, or with `first_step="skills"` the
    skill itself. Later iterations follow equation 2 exactly, as equations 3 and 4 assume; with
    `random_steps="every"` each asks anew.
    """
    rng = np.random.default_rng(seed)
    history = [np.full((num_models, num_topics), 1 / num_topics)]
    for number in range(num_iterations):
        skills = fractions = history[-1]
        if number == 0 or random_steps == "every":
            right = rng.binomial(num_questions, np.minimum(skills, 1.0))
            total = right.sum(axis=-1, keepdims=True)
            fractions = np.where(total > 0, right / np.maximum(total, 1), skills)
        sampled = number == 0 and first_step == "skills"
        history.append(update(fractions if sampled else skills, fractions=fractions))
    return np.stack(history)


def specialized_topic(skills: np.ndarray) -> np.ndarray:
    """The topic of the largest skill (..., topics) -> (...), numbered from 0; -1 for an exact tie."""
    alone = (skills == skills.max(axis=-1, keepdims=True)).sum(axis=-1) == 1
    return np.where(alone, skills.argmax(axis=-1), -1)


def topics_covered(skills: np.ndarray) -> np.ndarray:
    """How many topics have a model that prefers them: (..., models, topics) -> (...)."""
    topics = np.arange(skills.shape[-1])
    return (specialized_topic(skills)[..., None] == topics).any(axis=-2).sum(axis=-1)


def iterations_until_specialized(skills: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """Iterations of (iterations + 1, ..., topics) until the largest exceeds `threshold`, or nan."""
    above = skills.max(axis=-1) > threshold
    return np.where(above.any(axis=0), above.argmax(axis=0), math.nan)


# The same of a real society: `debates[l]` are those after l iterations; agents are counted from 1


def known_topics(debates: Sequence[Debate]) -> list[Topic]:
    """Which of style, subject and level tell these problems, or their first responses, apart."""
    found = {
        topic: {_topic_of(turns[0], d.problem, topic) for d in debates for turns in d.turns} - {None}
        for topic in TOPICS
    }
    return [topic for topic, names in found.items() if len(names) > 1]


def topic_shares(debates: Sequence[Sequence[Debate]], topic: Topic = "style") -> pd.DataFrame:
    """What each agent learned from: the share of every topic in D_n^G, iteration by iteration.

    It counts first answers that agree with the vote. A topic is the style in which the response reasons
    (responses in no known style are left out), or the subject or level of the problem. The frame has
    `agent`, `iteration`, `topic`, `responses`, `share` (0 to 1) and its binomial standard `error`.
    """
    rows = _rows(debates, topic, 1, lambda turn, d: is_equivalent(turn.answer, d.vote, d.problem.task))
    keys = ["agent", "iteration", "topic"]
    every = pd.MultiIndex.from_product([sorted(rows[key].unique()) for key in keys], names=keys)
    agreeing = rows.groupby(keys).judged.sum().reindex(every, fill_value=0)
    frame = agreeing.rename("responses").reset_index()
    total = frame.groupby(["agent", "iteration"]).responses.transform("sum")
    share = frame.responses / total.where(total > 0)
    return frame.assign(share=share, error=np.sqrt(share * (1 - share) / total))


def accuracy_by_topic(
    debates: Sequence[Sequence[Debate]], topic: Topic = "subject", round: int = 1
) -> pd.DataFrame:
    """How often each agent's answers of a round (1 to M) are right, topic by topic.

    The frame has `agent`, `topic`, `iteration`, `accuracy` and its `standard_error` (percent) and the
    number of `problems`: of a style, those that the agent answered in it.
    """
    rows = _rows(debates, topic, round, lambda turn, debate: is_correct(turn.answer, debate.problem))
    right = rows.groupby(["agent", "topic", "iteration"]).judged
    frame = right.agg(accuracy="mean", problems="size").reset_index()
    error = np.sqrt(frame.accuracy * (1 - frame.accuracy) / frame.problems)
    frame.insert(4, "standard_error", 100 * error)
    return frame.assign(accuracy=100 * frame.accuracy)


def _rows(
    debates: Sequence[Sequence[Debate]], topic: Topic, round: int, judge: Callable[[Turn, Debate], bool]
) -> pd.DataFrame:
    """One row per iteration, problem and agent: the topic of a response and how it is judged."""
    rows = [
        (iteration, number, name, judge(agent[round - 1], debate))
        for iteration, part in enumerate(debates)
        for debate in part
        for number, agent in enumerate(debate.turns, start=1)
        if (name := _topic_of(agent[round - 1], debate.problem, topic)) is not None
    ]
    return pd.DataFrame(rows, columns=["iteration", "agent", "topic", "judged"])


def _topic_of(turn: Turn, problem: Problem, topic: Topic) -> str | None:
    if topic == "subject":
        return problem.subject
    if topic == "level":
        return None if problem.level is None else f"level {problem.level}"
    style = style_of(turn.response, problem.styles)
    return None if style is None else f"style {style + 1}"


def specialization(shares: pd.DataFrame, num_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How far the agents of a society specialise, in two numbers, from `topic_shares`.

    Per iteration: `largest_share`, the mean over agents, and `mutual_information` (nats) of agent and
    topic. From n responses both are too large, the latter by `bias`, to first order
    (N - 1)(K - 1) / 2n. `largest_by_chance` and `information_by_chance` are the means of societies with
    as many responses whose agents do not differ, `p` is how often these have as much information.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for iteration, part in shares.groupby("iteration"):
        counts = part.pivot(index="agent", columns="topic", values="responses").to_numpy()
        counts = counts[counts.sum(axis=1) > 0]
        if not len(counts):
            continue
        totals, pooled = counts.sum(axis=1), counts.sum(axis=0) / counts.sum()
        chance = np.stack([rng.multinomial(n, pooled, size=num_resamples) for n in totals], axis=1)
        information, by_chance = _mutual_information(counts), _mutual_information(chance)
        largest = [(c.max(axis=-1) / c.sum(axis=-1)).mean() for c in (counts, chance)]
        bias = (len(counts) - 1) * ((pooled > 0).sum() - 1) / (2 * counts.sum())
        p = (1 + (by_chance >= information - 1e-12).sum()) / (1 + num_resamples)
        rows.append([iteration, *largest, information, bias, by_chance.mean(), p])
    columns = ["iteration", "largest_share", "largest_by_chance", "mutual_information", "bias"]
    return pd.DataFrame(rows, columns=[*columns, "information_by_chance", "p"])


def _mutual_information(counts: np.ndarray) -> np.ndarray:
    """Of agent and topic, in nats: (..., agents, topics) -> (...)."""
    joint = counts / counts.sum(axis=(-2, -1), keepdims=True)
    apart = joint.sum(axis=-1, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    ratio = np.where(joint > 0, joint, 1) / np.where(joint > 0, apart, 1)
    return (joint * np.log(ratio)).sum(axis=(-2, -1))


def predicted_shares(
    shares: pd.DataFrame,
    num_iterations: int | None = None,
    first_step: Literal["fraction", "skills"] = "fraction",
    base: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What equations 2 and 3 make of the shares of iteration 0, as `predicted` of agent and topic.

    With `first_step="fraction"`, as in `simulate`, all agents begin at the base model's shares, pooled
    over the agents of iteration 0 in `base` (by default `shares`), and what each learned from in the
    first iteration is the fraction of equation 2; with "skills" each begins at its own shares. Up to
    `num_iterations`, by default as many as were measured.
    """
    first = shares[shares.iteration == 0].pivot(index="agent", columns="topic", values="responses")
    own = first.div(first.sum(axis=1), axis=0)
    common = shares if base is None else base
    pooled = common[common.iteration == 0].groupby("topic").responses.sum().reindex(own.columns)
    start = (own * 0 + pooled / pooled.sum() if first_step == "fraction" else own).to_numpy()
    history = [start, update(start, fractions=own.to_numpy())]
    wanted = int(shares.iteration.max()) if num_iterations is None else num_iterations
    while len(history) <= wanted:
        history.append(update(history[-1]))
    frames = [pd.DataFrame(s, own.index, own.columns).stack() for s in history[: wanted + 1]]
    return pd.concat(dict(enumerate(frames)), names=["iteration"]).rename("predicted").reset_index()
