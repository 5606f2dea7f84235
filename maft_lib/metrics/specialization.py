"""Appendix G: how agents that learn from what they got right come to prefer different topics.

First the mathematical model, equations 2 to 4, then the same quantities of a real society's debates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from maft_lib.debate import Debate
from maft_lib.grading import is_correct, is_equivalent
from maft_lib.metrics.statistics import standard_error
from maft_lib.tasks.worked import style_of

Topic = Literal["style", "subject", "level"]
TOPICS: tuple[Topic, ...] = ("style", "subject", "level")


def update(
    skills: np.ndarray, axis: int | tuple[int, int] = -1, fractions: np.ndarray | None = None
) -> np.ndarray:
    """One iteration of finetuning: equation 2, then the normalisation that equation 3 divides by.

    `skills` (..., models, topics) and `fractions`, the topics' shares of what a model trains on.
    The skills of a model sum to one. Appendix G says "across all models": with `axis=-2` those of a
    topic do, with (-2, -1) those of all models and topics together.
    """
    if fractions is None:
        fractions = skills / skills.sum(axis=-1, keepdims=True)
    raised = skills * (1 + fractions)
    return raised / raised.sum(axis=axis, keepdims=True)


def simulate(
    num_models: int,
    num_topics: int = 3,
    num_questions: int = 166,
    num_iterations: int = 5,
    seed: int = 0,
    first_step: Literal["fraction", "skills"] = "fraction",
    random_steps: Literal["first", "every"] = "first",
) -> np.ndarray:
    """Skills (iterations + 1, models, topics) of models that all begin at 1 / `num_topics`.

    In the first iteration a model is asked `num_questions` of each topic and answers a binomial number
    right: each topic's share of these is the fraction in equation 2, or with `first_step="skills"` the
    skill itself. Later iterations follow equation 2 exactly, or with `random_steps="every"` ask anew.
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


def _first_responses(debates: Sequence[Sequence[Debate]]) -> pd.DataFrame:
    """One row per iteration, problem and agent: its topics, and how its answer is judged."""
    rows = []
    for iteration, debate in [(n, debate) for n, part in enumerate(debates) for debate in part]:
        problem = debate.problem
        level = None if problem.level is None else f"level {problem.level}"
        for agent, (turn, *_) in enumerate(debate.turns, start=1):
            number = style_of(turn.response, problem.styles)
            style = None if number is None else f"style {number + 1}"
            agrees = is_equivalent(turn.answer, debate.vote, problem.task)
            right = is_correct(turn.answer, problem)
            rows.append((iteration, agent, style, problem.subject, level, agrees, right))
    return pd.DataFrame(rows, columns=["iteration", "agent", *TOPICS, "agrees", "right"])


def known_topics(debates: Sequence[Debate]) -> list[Topic]:
    """Which of style, subject and level tell these problems, or their first responses, apart."""
    rows = _first_responses([debates])
    return [topic for topic in TOPICS if rows[topic].nunique() > 1]


def topic_shares(debates: Sequence[Sequence[Debate]], topic: Topic = "style") -> pd.DataFrame:
    """What each agent learned from: the share of every topic in D_n^G, iteration by iteration.

    It counts first answers that agree with the vote, as `responses`. A topic is the style in which one
    reasons (if known), or the subject or level of the problem. `error` is binomial.
    """
    rows = _first_responses(debates).dropna(subset=topic).rename(columns={topic: "topic"})
    keys = ["agent", "iteration", "topic"]
    every = pd.MultiIndex.from_product([sorted(rows[key].unique()) for key in keys], names=keys)
    agreeing = rows.groupby(keys).agrees.sum().reindex(every, fill_value=0)
    frame = agreeing.rename("responses").reset_index()
    total = frame.groupby(["agent", "iteration"]).responses.transform("sum")
    share = frame.responses / total.where(total > 0)
    return frame.assign(share=share, error=np.sqrt(share * (1 - share) / total))


def accuracy_by_topic(debates: Sequence[Sequence[Debate]], topic: Topic = "subject") -> pd.DataFrame:
    """How often each agent's first answers are right (percent), topic by topic.

    `problems` counts those of the topic: of a style, those that the agent answered in it.
    """
    rows = _first_responses(debates).rename(columns={topic: "topic"})
    right = rows.groupby(["agent", "topic", "iteration"]).right
    frame = right.agg(accuracy="mean", standard_error=standard_error, problems="size") * [100, 100, 1]
    return frame.reset_index()


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
    shares: pd.DataFrame, num_iterations: int, base: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What equations 2 and 3 make of the shares of iteration 0, as `predicted` of agent and topic.

    Each agent begins at its own shares. With `base`, as in `simulate`, all begin at the base model's,
    pooled over the agents of iteration 0 in it, and the fraction of the first equation 2 is what each
    learned from.
    """
    first = shares[shares.iteration == 0].pivot(index="agent", columns="topic", values="responses")
    start = own = first.div(first.sum(axis=1), axis=0)
    if base is not None:
        pooled = base[base.iteration == 0].groupby("topic").responses.sum().reindex(own.columns)
        start = own * 0 + pooled / pooled.sum()
    history = [start.to_numpy()]
    for number in range(num_iterations):
        history.append(update(history[-1], fractions=None if number else own.to_numpy()))
    frames = [pd.DataFrame(skills, own.index, own.columns).stack() for skills in history]
    return pd.concat(dict(enumerate(frames)), names=["iteration"]).rename("predicted").reset_index()
