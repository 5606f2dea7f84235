"""Measures of diversity (Section 4.2, Appendix C), of finished debates and a scorer.

Each measure returns a tidy frame: `problem`, `value` and what else tells its rows apart. A problem
that says nothing (a single response to compare) has the value nan. `number` is a round, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from maft_lib.backends import Message
from maft_lib.debate import Debate, majority_vote
from maft_lib.grading import group_equivalent, is_correct, is_equivalent
from maft_lib.metrics.statistics import mean_over_problems
from maft_lib.seeds import derive_seed
from maft_lib.society import Society
from maft_lib.tasks.worked import style_of

if TYPE_CHECKING:
    from maft_lib.backends.scorer import Scorer

Debates: TypeAlias = Sequence[Debate]


def by_iteration(results: Sequence[Any], measure: Callable, column: str = "value") -> pd.DataFrame:
    """Mean and standard error of a measure after each iteration of each study's result.

    `measure` takes the debates on the eval problems and the society that held them.
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


def _per_problem(debates: Debates, values: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({"problem": [debate.problem.id for debate in debates], "value": values})


def disagreement(debates: Debates, number: int = -1) -> pd.DataFrame:
    """1 - consensus (C.1): the share of agents, 0 to 1, whose answer in a round is not its vote.

    For the single-agent method the authors take three answers without a debate and their vote, which
    is `number=0`. An unreadable answer agrees with nothing.
    """
    values = []
    for debate in debates:
        answers, vote, task = [own[number] for own in debate.answers], debate.vote, debate.problem.task
        if number != -1:
            vote = majority_vote(answers, task, derive_seed(0, debate.problem.id, "vote", number))
        agreeing = [is_equivalent(answer, vote, task) for answer in answers]
        values.append(1 - sum(agreeing) / len(agreeing))
    return _per_problem(debates, values)


def flips(debates: Debates) -> pd.DataFrame:
    """Whether each answer is `right` or `wrong` `before` and `after` each step to the next round."""
    judged = [[_verdict(answer, d) for answer in answers] for d in debates for answers in d.answers]
    steps = [step for verdicts in judged for step in zip(verdicts, verdicts[1:])]
    return pd.DataFrame(steps, columns=["before", "after"])


def _verdict(answer: str | None, debate: Debate) -> str:
    return "right" if is_correct(answer, debate.problem) else "wrong"


def follows_majority(debates: Debates) -> pd.DataFrame:
    """Whether a critic takes over what most of the others said, where it had said something else.

    A row per agent, problem and round in which more than half of the *other* agents gave one answer
    and the agent itself did not: `majority` is `right` or `wrong`, `value` is 1 where the agent's next
    answer is theirs.
    """
    rows = []
    for debate in debates:
        task = debate.problem.task
        for agent, answers in enumerate(debate.answers):
            for number, (before, after) in enumerate(zip(answers, answers[1:])):
                others = [own[number] for k, own in enumerate(debate.answers) if k != agent]
                largest = max(group_equivalent(others, task), key=len, default=[])
                theirs = others[largest[0]] if 2 * len(largest) > len(others) else None
                if theirs is not None and not is_equivalent(before, theirs, task):
                    followed = float(is_equivalent(after, theirs, task))
                    rows.append((debate.problem.id, agent + 1, _verdict(theirs, debate), followed))
    return pd.DataFrame(rows, columns=["problem", "agent", "majority", "value"])


def negative_log_likelihood(
    debates: Debates,
    society: Society,
    scorer: Scorer,
    role: Literal["generator", "critic"] = "critic",
    context: Literal["speaker", "listener"] = "speaker",
    own: bool = False,
) -> pd.DataFrame:
    """How unlikely an agent finds what the others said (Section 4.2), in nats.

    A row per problem, `listener` (the held-out agent) and `speaker`, with the negative log-likelihood
    of the speaker's response under the listener's model `per_token` (also `value`) and `per_response`.
    `role` is `critic`, for last responses, or `generator`, for first ones. With `own` there are also
    rows in which an agent hears itself.

    The paper does not say what the held-out agent reads before the response. `speaker`: what the
    speaker had read, so that a difference comes from the models alone and not from their
    conversations; `listener`: its own conversation, as if it were about to speak itself.
    """
    if role == "critic" and any(len(debate.turns[0]) < 2 for debate in debates):
        raise ValueError("critics speak from the second round on: with num_rounds 1 ask generators.")
    agents = society.generators if role == "generator" else society.critics
    number, end = (0, 1) if role == "generator" else (-1, -1)
    rows, models, conversations = [], [], []
    everyone = product(range(len(agents)), repeat=2)
    pairs = [(listener, speaker) for listener, speaker in everyone if own or listener != speaker]
    for debate in debates:
        for listener, speaker in pairs:
            read = debate.conversation(listener if context == "listener" else speaker)[:end]
            said = {"role": "assistant", "content": debate.turns[speaker][number].response}
            rows.append((debate.problem.id, listener + 1, speaker + 1))
            models.append(agents[listener].model)
            conversations.append([*read, said])
    scores = scorer.log_likelihoods(models, conversations)
    frame = pd.DataFrame(rows, columns=["problem", "listener", "speaker"])
    frame["per_response"] = [-sum(tokens) for tokens in scores]
    frame["per_token"] = [-sum(tokens) / len(tokens) for tokens in scores]
    return frame.assign(value=frame.per_token)


def kl_by_own_likelihoods(debates: Debates, society: Society, scorer: Scorer) -> pd.DataFrame:
    """KL divergence between agents by their *own* likelihoods, in nats per response.

    KL(p_n || p_k), both after what the speaker n had read, is the mean of log p_n(y) - log p_k(y)
    over responses y of agent n. One response a problem makes an unbiased estimate, whose single
    values may be negative, if responses were drawn at temperature 1 and top_p 1, none was cut off and
    their text is tokenized as it was drawn. The paper (C.2) asks a third model: `kl_divergence`.
    """
    frame = negative_log_likelihood(debates, society, scorer, own=True)
    heard, keys = frame[frame.listener != frame.speaker], ["problem", "speaker"]
    own = frame[frame.listener == frame.speaker].set_index(keys).per_response.rename("own")
    value = heard.per_response - heard.join(own, on=keys).own
    return heard[["problem", "listener", "speaker"]].assign(value=value)


def kl_divergence(
    debates: Debates, scorer: Scorer, model: str, number: int = -1, base: Debates | None = None
) -> pd.DataFrame:
    """KL divergence between agents' response distributions, in nats, with one scorer (C.2).

    The paper leaves the estimator open. Here P_y is the next-token distribution of `model` after the
    problem, averaged over the places of response y; `value` is KL(P_y || P_y') averaged over all
    ordered pairs of the responses of a round. As KL is convex, two draws of *one* agent give more than
    0; how much depends on how much its own responses vary.

    With `base`, debates of the base society on the same problems, it is KL(P_agent || P_base) over all
    pairs of an agent and a base agent (C.3). Drawn from seeds of their own, they show at iteration 0
    what two independent draws of one model give.
    """
    others = {debate.problem.id: debate.turns for debate in base or ()}
    agents = [(*debate.turns, *others.get(debate.problem.id, ())) for debate in debates]
    spoken = [[turns[number].response for turns in both] for both in agents]
    asked: list[list[Message]] = [[{"role": "user", "content": d.turns[0][0].asked}] for d in debates]
    matrices = scorer.divergences(model, asked, spoken)
    if base is not None:
        n = len(debates[0].turns)
        return _per_problem(debates, [matrix[:n, n:].mean() for matrix in matrices])
    return _per_problem(debates, [_off_diagonal_mean(matrix) for matrix in matrices])


def embedding_dissimilarity(
    debates: Debates, scorer: Scorer, encoder: str, pooling: str = "mean", agreeing: bool = True
) -> pd.DataFrame:
    """1 - cosine similarity of the agents' embedded last responses, averaged over pairs (C.4): 0 to 2.

    Only responses that agree with the vote count, unless `agreeing=False`.
    """
    spoken = []
    for debate in debates:
        vote, task, last = debate.vote, debate.problem.task, [own[-1] for own in debate.turns]
        counted = [turn for turn in last if not agreeing or is_equivalent(turn.answer, vote, task)]
        spoken.append([turn.response for turn in counted])
    vectors = _unit_vectors(scorer, encoder, [text for texts in spoken for text in texts], pooling)
    own = np.split(vectors, np.cumsum([len(texts) for texts in spoken])[:-1])
    return _per_problem(debates, [_off_diagonal_mean(1 - part @ part.T) for part in own])


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    """The mean over pairs of different responses (responses, responses); nan without a pair."""
    off = np.logical_not(np.eye(*matrix.shape))
    return float(matrix[off].mean()) if off.any() else float("nan")


def _unit_vectors(scorer: Scorer, encoder: str, texts: list[str], pooling: str) -> np.ndarray:
    if not texts:
        return np.empty((0, 1))
    vectors = scorer.embeddings(encoder, texts, pooling)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _styles(debate: Debate, number: int) -> list[int | None]:
    return [style_of(turns[number].response, debate.problem.styles) for turns in debate.turns]


def distinct_styles(debates: Debates, number: int = -1) -> pd.DataFrame:
    """Known styles of reasoning among the agents' responses of a round, over the number of agents."""
    found = [set(_styles(debate, number)) - {None} for debate in debates]
    values = [len(own) / len(d.turns) if own else np.nan for own, d in zip(found, debates)]
    return _per_problem(debates, values)


def style_separation(debates: Debates, scorer: Scorer, encoder: str, pooling: str = "mean") -> float:
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
