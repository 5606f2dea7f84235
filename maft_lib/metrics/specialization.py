"""Appendix G: how agents that learn from what they got right come to prefer different topics.

First the mathematical model, equations 2 to 4, with closed forms to hold beside it; then the same
quantities of a real society's debates. Knows no models that generate text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from maft_lib.arguments import (
    check_choice,
    check_columns,
    check_debates,
    check_each,
    check_number,
    check_whole,
)
from maft_lib.debate import Debate, Turn
from maft_lib.grading import is_correct, is_equivalent
from maft_lib.tasks.problem import Problem
from maft_lib.tasks.worked import style_of

Topic = Literal["style", "subject", "level"]
TOPICS: tuple[Topic, ...] = ("style", "subject", "level")
AXES = {"topics": (-1,), "models": (-2,), "all": (-2, -1)}


# The mathematical model


def update(skills: np.ndarray, normalize_over: str = "topics") -> np.ndarray:
    """One iteration of finetuning: equation 2, then the normalisation that equation 3 divides by.

    `skills` (..., topics) or (..., models, topics); the result has their shape, and each model's sum to
    one. Appendix G says "across all models": with `normalize_over="models"` those of each topic sum to
    one over the models, with "all" those of all models and topics together. Raises `ValueError` for
    negative skills, a model without any, and an unknown reading.
    """
    skills = _skills(skills)
    if not (skills >= 0).all() or not (skills.sum(axis=-1) > 0).all():
        raise ValueError("skills must not be negative, and each model needs at least one above zero.")
    check_choice("normalize_over", normalize_over, tuple(AXES))
    if skills.ndim < 2 and normalize_over != "topics":
        raise ValueError(f"normalize_over is {normalize_over}: give skills (..., models, topics).")
    return _trained(skills, skills / skills.sum(axis=-1, keepdims=True), AXES[normalize_over])


def _skills(skills: np.ndarray) -> np.ndarray:
    """Skills (..., topics) as floats; raises `ValueError` for what is no array of finite numbers."""
    try:
        values = np.asarray(skills, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if not values.ndim or not values.shape[-1] or not np.isfinite(values).all():
        raise ValueError("skills is no array (..., topics) of finite numbers: give one.")
    return values


def _trained(skills: np.ndarray, fractions: np.ndarray, axes: tuple[int, ...] = (-1,)) -> np.ndarray:
    """Skills after training on `fractions` of each topic."""
    raised = skills * (1 + fractions)
    return raised / raised.sum(axis=axes, keepdims=True)


def simulate(
    num_models: int,
    num_topics: int = 3,
    num_questions: int = 166,
    num_iterations: int = 5,
    seed: int = 0,
    *,
    first_step: str = "fraction",
    random_steps: str = "first",
) -> np.ndarray:
    """Skills (iterations + 1, models, topics) of models that all begin at 1 / `num_topics`.

    In the first iteration a model is asked `num_questions` of each topic and answers a binomial number
    right. With `first_step="fraction"` what it trains on is random: the fraction in equation 2 is each
    topic's share of its right answers. With "skills" its skills themselves are read off that sample.
    Later iterations follow equation 2 exactly, as equations 3 and 4 assume; with
    `random_steps="every"` each asks as many questions anew. Raises `ValueError` for an unknown reading
    and for numbers below one.
    """
    check_choice("first_step", first_step, ("fraction", "skills"))
    check_choice("random_steps", random_steps, ("first", "every"))
    check_whole("num_models", num_models, 1)
    check_whole("num_topics", num_topics, 1)
    check_whole("num_questions", num_questions, 1)
    check_whole("num_iterations", num_iterations, 0)
    check_whole("seed", seed, 0)
    rng = np.random.default_rng(seed)
    skills = np.full((num_models, num_topics), 1 / num_topics)
    history = [skills]
    for number in range(num_iterations):
        fractions = skills
        if number == 0 or random_steps == "every":
            fractions = _fractions_seen(skills, num_questions, rng)
        sampled = number == 0 and first_step == "skills"
        skills = _trained(fractions if sampled else skills, fractions)
        history.append(skills)
    return np.stack(history)


def _fractions_seen(skills: np.ndarray, num_questions: int, rng: np.random.Generator) -> np.ndarray:
    """Each topic's share of the questions answered right; the skills' own where none was."""
    right = rng.binomial(num_questions, np.minimum(skills, 1.0))
    total = right.sum(axis=-1, keepdims=True)
    return np.where(total > 0, right / np.maximum(total, 1), skills)


def specialized_topic(skills: np.ndarray) -> np.ndarray:
    """The topic of the largest skill (..., topics) -> (...), numbered from 0; -1 for an exact tie."""
    skills = _skills(skills)
    largest = skills.max(axis=-1, keepdims=True)
    alone = (skills == largest).sum(axis=-1) == 1
    return np.where(alone, skills.argmax(axis=-1), -1)


def topics_covered(skills: np.ndarray) -> np.ndarray:
    """How many topics have a model that prefers them: (..., models, topics) -> (...)."""
    skills = _skills(skills)
    if skills.ndim < 2:
        raise ValueError("skills are those of one model: give an array (..., models, topics).")
    topics = np.arange(skills.shape[-1])
    return (specialized_topic(skills)[..., None] == topics).any(axis=-2).sum(axis=-1)


def iterations_until_specialized(skills: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """Iterations until the largest skill exceeds `threshold`, nan where it never does.

    `skills` (iterations + 1, ..., topics) -> (...).
    """
    skills = _skills(skills)
    if skills.ndim < 2 or not len(skills):
        raise ValueError(
            "skills are those of one iteration: give an array (iterations + 1, ..., topics)."
        )
    check_number("threshold", threshold, 0, 1)
    above = skills.max(axis=-1) > threshold
    return np.where(above.any(axis=0), above.argmax(axis=0), math.nan)


def expected_coverage(num_models: int, num_topics: int, tied: float = 0.0) -> float:
    """Expected topics covered by models that choose at random: K (1 - (1 - 1/K)^N).

    Models with an exact tie, a share `tied` of them, choose none.
    """
    check_whole("num_models", num_models, 0)
    check_whole("num_topics", num_topics, 1)
    check_number("tied", tied, 0, 1)
    return num_topics * (1 - (1 - (1 - tied) / num_topics) ** num_models)


def growth_factor(num_topics: int) -> float:
    """By what a small deviation from equal skills grows per iteration: (1 + 2/K) / (1 + 1/K).

    At S = 1/K + d with the sum of d zero, S (1 + S) is 1/K + 1/K^2 + (1 + 2/K) d to first order, and
    the sum over topics is 1 + 1/K. 1.25 for three topics.
    """
    check_whole("num_topics", num_topics, 1)
    return (1 + 2 / num_topics) / (1 + 1 / num_topics)


# The same of a real society


def known_topics(debates: Sequence[Debate]) -> list[Topic]:
    """Which of style, subject and level tell these problems, or their first responses, apart."""
    check_debates(debates)
    styles, subjects, levels = (
        {_topic_of(turns[0], debate.problem, topic) for debate in debates for turns in debate.turns}
        for topic in TOPICS
    )
    found = [len(names - {None}) > 1 for names in (styles, subjects, levels)]
    return [topic for topic, is_known in zip(TOPICS, found) if is_known]


def topic_shares(debates: Sequence[Sequence[Debate]], topic: Topic = "style") -> pd.DataFrame:
    """What each agent learned from: the share of every topic in D_n^G, iteration by iteration.

    `debates[l]` are those after l iterations of finetuning, as in `Result.training` and
    `Result.evaluations`; what counts are first answers that agree with the vote. A topic is the style
    in which the response reasons (numbered as in its problem; responses in no known style are left
    out), or the subject or level of the problem. The frame has `agent` (from 1), `iteration`
    (l), `topic`, `responses`, `share` (0 to 1; nan without any response) and its binomial standard
    `error`. Raises `ValueError` where no response has such a topic.
    """
    rows = _rows(debates, topic, 1, lambda turn, d: is_equivalent(turn.answer, d.vote, d.problem.task))
    every = pd.MultiIndex.from_product([sorted(rows[name].unique()) for name in ("agent", "iteration")])
    counts = rows[rows.judged].groupby(["agent", "iteration"]).topic.value_counts().unstack()
    counts = counts.reindex(index=every, columns=sorted(rows.topic.unique())).fillna(0).astype(int)
    frame = counts.rename_axis(["agent", "iteration"]).rename_axis(columns="topic").stack()
    frame = frame.rename("responses").reset_index()
    total = frame.groupby(["agent", "iteration"]).responses.transform("sum")
    share = frame.responses / total.where(total > 0)
    return frame.assign(share=share, error=np.sqrt(share * (1 - share) / total))


def accuracy_by_topic(
    debates: Sequence[Sequence[Debate]], topic: Topic = "subject", round: int = 1
) -> pd.DataFrame:
    """How often each agent's answers of a round (1 to M) are right, topic by topic.

    `debates`, `topic` and `ValueError` as in `topic_shares`. The frame has `agent` (from 1), `topic`,
    `iteration`, `accuracy` and its `standard_error` (percent) and `problems`, how many there are. Where
    the topic is the style, these are the problems that the agent answered in it.
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
    check_choice("topic", topic, TOPICS)
    check_each("debates", debates, object)
    for iteration, part in enumerate(debates):
        check_debates(part, name=f"debates[{iteration}]")
    check_whole("round", round)
    num_rounds = min(len(turns) for part in debates for d in part for turns in d.turns)
    if not 1 <= round <= num_rounds:
        raise ValueError(f"round is 1 to {num_rounds} in these debates, but it is {round}.")
    rows = [
        (iteration, number, name, judge(agent[round - 1], debate))
        for iteration, part in enumerate(debates)
        for debate in part
        for number, agent in enumerate(debate.turns, start=1)
        if (name := _topic_of(agent[round - 1], debate.problem, topic)) is not None
    ]
    if not rows:
        raise ValueError(f"no response of these debates has a {topic}; `known_topics` says what has.")
    return pd.DataFrame(rows, columns=["iteration", "agent", "topic", "judged"])


def _topic_of(turn: Turn, problem: Problem, topic: Topic) -> str | None:
    if topic == "subject":
        return problem.subject
    value = problem.level if topic == "level" else style_of(turn.response, problem.styles)
    if value is None:
        return None
    return f"level {value}" if topic == "level" else f"style {value + 1}"


def specialization(shares: pd.DataFrame, num_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How far the agents of a society specialise, in two numbers, from `topic_shares`.

    Per iteration: `largest_share`, the mean over agents, and `mutual_information` (nats) of agent and
    topic. From n responses both are too large, the latter by `bias`, to first order
    (N - 1)(K - 1) / 2n for N agents and K topics. `largest_by_chance` and `information_by_chance` are
    the means of societies with as many responses whose agents do not differ, and `p` is how often
    these have as much information or more. Raises `ValueError` for a frame without these columns, or
    where no agent has a response.
    """
    check_columns("shares", shares, ("agent", "iteration", "topic", "responses"))
    check_whole("num_resamples", num_resamples, 1)
    check_whole("seed", seed, 0)
    rng = np.random.default_rng(seed)
    rows = []
    for iteration, part in shares.groupby("iteration"):
        counts = part.pivot(index="agent", columns="topic", values="responses").to_numpy()
        counts = counts[counts.sum(axis=1) > 0]
        if len(counts):
            rows.append({"iteration": iteration, **_society(counts, num_resamples, rng)})
    if not rows:
        raise ValueError("shares has no responses at all: give those of debates in which some agree.")
    return pd.DataFrame(rows)


def _society(counts: np.ndarray, num_resamples: int, rng: np.random.Generator) -> dict[str, float]:
    totals, pooled = counts.sum(axis=1), counts.sum(axis=0) / counts.sum()
    chance = np.stack([rng.multinomial(n, pooled, size=num_resamples) for n in totals], axis=1)
    information = _mutual_information(counts)
    by_chance = _mutual_information(chance)
    degrees = (len(counts) - 1) * ((pooled > 0).sum() - 1)
    return {
        "largest_share": _largest_share(counts),
        "largest_by_chance": _largest_share(chance),
        "mutual_information": information,
        "bias": degrees / (2 * counts.sum()),
        "information_by_chance": by_chance.mean(),
        "p": (1 + (by_chance >= information - 1e-12).sum()) / (1 + num_resamples),
    }


def _largest_share(counts: np.ndarray) -> float:
    return (counts.max(axis=-1) / counts.sum(axis=-1)).mean()


def _mutual_information(counts: np.ndarray) -> np.ndarray:
    """Of agent and topic, in nats: (..., agents, topics) -> (...)."""
    joint = counts / counts.sum(axis=(-2, -1), keepdims=True)
    apart = joint.sum(axis=-1, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    ratio = np.where(joint > 0, joint, 1) / np.where(joint > 0, apart, 1)
    return (joint * np.log(ratio)).sum(axis=(-2, -1))


def predicted_shares(
    shares: pd.DataFrame,
    num_iterations: int | None = None,
    first_step: str = "fraction",
    base: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What equations 2 and 3 make of the shares of iteration 0, in a frame like that of `topic_shares`.

    Its columns are `iteration`, `agent`, `topic` and `predicted`. With `first_step="fraction"`, as in
    `simulate`, all agents begin at the shares of the base model, which they have in common, and what
    each learned from in the first iteration is the fraction of equation 2; with "skills" each begins at
    its own shares. The base model's are pooled over the agents of iteration 0 in `base`, by default
    `shares`. Up to `num_iterations`, by default as many as were measured. Raises `ValueError` for an
    unknown reading and where an agent of the base society has no response.
    """
    check_choice("first_step", first_step, ("fraction", "skills"))
    for name, frame in (("shares", shares), ("base", shares if base is None else base)):
        check_columns(name, frame, ("agent", "iteration", "topic", "responses"))
    if num_iterations is not None:
        check_whole("num_iterations", num_iterations, 0)
    first = shares[shares.iteration == 0].pivot(index="agent", columns="topic", values="responses")
    if not (first.sum(axis=1) > 0).all() or first.empty:
        raise ValueError("each agent of iteration 0 needs a response to predict its shares from.")
    own = first.div(first.sum(axis=1), axis=0)
    common = shares if base is None else base
    pooled = common[common.iteration == 0].groupby("topic").responses.sum().reindex(own.columns)
    start = own * 0 + pooled / pooled.sum() if first_step == "fraction" else own
    history = [start.to_numpy(), _trained(start.to_numpy(), own.to_numpy())]
    wanted = int(shares.iteration.max()) if num_iterations is None else num_iterations
    while len(history) <= wanted:
        history.append(update(history[-1]))
    frames = [pd.DataFrame(s, own.index, own.columns).stack() for s in history[: wanted + 1]]
    return pd.concat(dict(enumerate(frames)), names=["iteration"]).rename("predicted").reset_index()
