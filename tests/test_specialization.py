"""Appendix G against sums done by hand, closed forms and hand-made debates."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from maft_lib import plots
from maft_lib.debate import Debate, Turn
from maft_lib.metrics import specialization as g
from maft_lib.tasks.problem import Problem

matplotlib.use("Agg")

NUM_STARTS = 10_000


@pytest.fixture(scope="module")
def starts():
    """Skills of 10,000 models over 30 iterations after the random first step."""
    return g.simulate(NUM_STARTS, num_questions=166, num_iterations=30)


# The mathematical model


def test_equation_2_by_hand():
    # 0.5 (1 + 0.5), 0.3 (1 + 0.3), 0.2 (1 + 0.2) are 0.75, 0.39, 0.24, and sum to 1.38.
    assert g.update(np.array([0.5, 0.3, 0.2])) == pytest.approx(np.array([75, 39, 24]) / 138)
    # Equation 2 divides by the sum of the skills, so their scale makes no difference.
    assert g.update(np.array([5.0, 3.0, 2.0])) == pytest.approx(np.array([75, 39, 24]) / 138)


def test_update_takes_any_leading_axes_and_normalises_each_model():
    skills = np.random.default_rng(0).random((4, 5, 3))
    updated = g.update(skills)
    assert updated.shape == (4, 5, 3)
    assert updated.sum(axis=-1) == pytest.approx(np.ones((4, 5)))
    assert updated[2, 3] == pytest.approx(g.update(skills[2, 3]))


def test_normalised_across_models_the_largest_skill_of_a_model_can_fall():
    skills = np.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]])
    over_models, over_all = (g.update(skills, axis) for axis in (-2, (-2, -1)))
    assert over_models.sum(axis=0) == pytest.approx(np.ones(3))
    assert over_all.sum() == pytest.approx(1)
    assert over_all[1, 0] < skills[1, 0] / skills.sum()
    assert g.update(skills)[1, 0] > skills[1, 0]


def test_the_largest_skill_never_falls_and_rises_unless_all_are_equal(starts):
    largest = starts[1:].max(axis=-1)
    steps = np.diff(largest[:11], axis=0)
    assert (np.diff(largest, axis=0) > -1e-12).all()
    equal = np.ptp(starts[1], axis=-1) == 0
    assert (steps[:, ~equal] > 0).all()
    assert (abs(steps[:, equal]) < 1e-12).all()
    assert np.allclose(starts.sum(axis=-1), 1)


def test_the_first_step_decides_the_topic(starts):
    chosen = g.specialized_topic(starts[1])
    alone = chosen >= 0
    assert (g.specialized_topic(starts[-1])[alone] == chosen[alone]).all()
    assert np.bincount(chosen[alone]) / alone.sum() == pytest.approx(np.full(3, 1 / 3), abs=0.02)
    assert 0.04 < 1 - alone.mean() < 0.1  # exact ties of the largest


def test_equal_skills_stay_equal():
    assert g.update(np.full(3, 1 / 3)) == pytest.approx(np.full(3, 1 / 3), abs=1e-15)


@pytest.mark.parametrize("num_topics, factor", [(2, 4 / 3), (3, 1.25), (10, 12 / 11)])
def test_small_deviations_grow_by_the_growth_factor(num_topics, factor):
    deviation = np.zeros(num_topics)
    deviation[:2] = 1e-6, -1e-6
    grown = g.update(1 / num_topics + deviation) - 1 / num_topics
    assert grown[0] / 1e-6 == pytest.approx(factor, rel=1e-4)


def test_the_random_first_step_has_the_spread_of_its_sample():
    counts = np.random.default_rng(1).binomial(50, 1 / 3, (NUM_STARTS, 3))
    spread = (counts / counts.sum(axis=1, keepdims=True)).std()
    steps = [g.simulate(NUM_STARTS, 3, 50, 1, first_step=name)[1] for name in ("fraction", "skills")]
    # S = (1 + f) / 4 in the one reading; in the other f itself, grown once.
    assert steps[0].std() == pytest.approx(spread / 4, rel=0.03)
    assert steps[1].std() == pytest.approx(1.25 * spread, rel=0.03)


def test_the_seed_decides_the_first_step():
    same, again, other = (g.simulate(5, seed=seed) for seed in (0, 0, 1))
    assert same.shape == (6, 5, 3)
    assert (same == again).all() and (same[1] != other[1]).any()
    assert same[0] == pytest.approx(np.full((5, 3), 1 / 3))
    assert same[2] == pytest.approx(g.update(same[1]))


def test_a_model_that_answers_nothing_right_learns_nothing():
    skills = g.simulate(1000, num_questions=1, num_iterations=1)[1]
    # None of three right, or all of them: (2/3)^3 + (1/3)^3 = 1/3.
    assert (np.ptp(skills, axis=-1) < 1e-12).mean() == pytest.approx(1 / 3, abs=0.05)


def test_with_every_step_random_the_largest_skill_can_fall():
    skills = g.simulate(1000, num_questions=20, num_iterations=10, random_steps="every")
    falls = np.diff(skills.max(axis=-1), axis=0)[1:] < -1e-12
    assert 0.1 < falls.any(axis=0).mean() < 1
    first, last = g.specialized_topic(skills[1]), g.specialized_topic(skills[-1])
    assert (first != last).mean() > 0.1


@pytest.mark.parametrize("num_models, num_topics", [(1, 3), (3, 3), (6, 3), (4, 5)])
def test_coverage_is_that_of_random_choices(num_models, num_topics):
    skills = g.simulate(4000 * num_models, num_topics, 1000, 1)[-1]
    tied = (g.specialized_topic(skills) < 0).mean()
    covered = g.topics_covered(skills.reshape(4000, num_models, num_topics))
    error = covered.std() / math.sqrt(4000) + 0.005
    expected = num_topics * (1 - (1 - (1 - tied) / num_topics) ** num_models)
    assert covered.mean() == pytest.approx(expected, abs=4 * error)


def test_three_models_on_three_topics():
    one_each = np.eye(3)[None]
    assert list(g.topics_covered(np.concatenate([one_each, one_each[:, [0, 0, 1]]]))) == [3, 2]
    tied = np.array([[0.4, 0.4, 0.2], [0.1, 0.8, 0.1]])
    assert list(g.specialized_topic(tied)) == [-1, 1] and g.topics_covered(tied) == 1


def test_ten_times_the_questions_take_a_constant_more_iterations():
    means = [
        np.nanmean(g.iterations_until_specialized(g.simulate(2000, 3, number, 80)))
        for number in (1_000, 10_000, 100_000)
    ]
    expected = 0.5 * math.log(10) / math.log(1.25)
    assert np.diff(means) == pytest.approx([expected, expected], abs=0.5)


def test_iterations_until_specialized():
    skills = np.array(
        [[[0.5, 0.5], [0.5, 0.5]], [[0.95, 0.05], [0.5, 0.5]], [[0.99, 0.01], [0.5, 0.5]]]
    )
    assert list(g.iterations_until_specialized(skills))[0] == 1
    assert math.isnan(g.iterations_until_specialized(skills)[1])


# The same of a real society: agents 1 and 2 say "up ..." (style 1), "down ..." (style 2) or neither.


def said(words, subject="algebra", level=1, rounds=1):
    """A debate whose vote and truth are 2; each agent's words end in its answer."""
    question = f"{words} {subject} {level}"
    problem = Problem(question, "arithmetic", question, "2", level, subject, styles=("up", "down"))
    turns = tuple((Turn("?", None, word, word.split()[-1]),) * rounds for word in words)
    return Debate(problem, turns, "2")


BASE = [
    said(["up 2", "up 2"]),
    said(["up 2", "down 2"]),
    said(["down 2", "down 2"], "geometry", 2),
    said(["down 3", "sideways 2"], "geometry", 2),
]
AFTER = [said(["up 2", "down 2"]), said(["up 2", "up 3"], "geometry", 2)]


def column(frame, name, **where):
    for key, value in where.items():
        frame = frame[frame[key] == value]
    return list(frame[name])


def test_topics_are_counted_in_first_answers_that_agree_with_the_vote():
    shares = g.topic_shares([BASE, AFTER])
    assert column(shares, "topic", agent=1, iteration=0) == ["style 1", "style 2"]
    assert column(shares, "responses", agent=1, iteration=0) == [2, 1]  # "down 3" does not agree
    assert column(shares, "responses", agent=2, iteration=0) == [1, 2]  # "sideways" is no style
    assert column(shares, "responses", agent=1, iteration=1) == [2, 0]
    assert column(shares, "share", agent=2, iteration=1) == [0, 1]
    assert column(shares, "share", agent=1, iteration=0) == pytest.approx([2 / 3, 1 / 3])
    assert column(shares, "error", agent=1, iteration=0) == pytest.approx([math.sqrt(2 / 27)] * 2)


@pytest.mark.parametrize(
    "topic, names", [("subject", ["algebra", "geometry"]), ("level", ["level 1", "level 2"])]
)
def test_topics_of_problems(topic, names):
    shares = g.topic_shares([BASE], topic)
    assert column(shares, "topic", agent=1) == names
    assert column(shares, "responses", agent=1) == [2, 1]
    assert column(shares, "responses", agent=2) == [2, 2]


def test_an_agent_that_learned_from_nothing_has_no_shares():
    shares = g.topic_shares([[said(["up 3", "up 2"])]])
    assert np.isnan(column(shares, "share", agent=1)).all()
    assert column(shares, "share", agent=2) == [1]


def test_accuracy_by_topic():
    frame = g.accuracy_by_topic([BASE, AFTER])
    assert list(frame) == ["agent", "topic", "iteration", "accuracy", "standard_error", "problems"]
    assert column(frame, "accuracy", agent=1, iteration=0) == [100, 50]
    assert column(frame, "problems", agent=1, iteration=0) == [2, 2]
    assert column(frame, "accuracy", agent=2, topic="geometry") == [100, 0]
    assert column(frame, "standard_error", agent=1, iteration=0) == pytest.approx(
        [0, 50 / math.sqrt(2)]
    )
    by_style = g.accuracy_by_topic([BASE], "style")
    assert column(by_style, "accuracy", agent=1, topic="style 2") == [50]
    assert column(by_style, "problems", agent=2) == [1, 2]


def test_topics_that_are_not_known():
    plain = Debate(Problem("a", "arithmetic", "a", "2"), BASE[0].turns, "2")
    assert g.known_topics(BASE) == ["style", "subject", "level"]
    assert g.known_topics(BASE[:2]) == ["style"]
    assert g.known_topics([plain]) == []


def shares_of(counts):
    rows = [(a + 1, 0, f"style {t + 1}", n) for a, row in enumerate(counts) for t, n in enumerate(row)]
    return pd.DataFrame(rows, columns=["agent", "iteration", "topic", "responses"])


def test_a_society_of_specialists():
    row = g.specialization(shares_of(np.eye(3, dtype=int) * 20)).iloc[0]
    assert row.largest_share == 1
    assert row.mutual_information == pytest.approx(math.log(3))
    assert row.p < 0.01


def test_a_society_of_equals_has_no_information_beyond_its_bias():
    row = g.specialization(shares_of([[20, 20, 20]] * 3), num_resamples=4000).iloc[0]
    assert row.mutual_information == pytest.approx(0) and row.p == 1
    assert row.largest_share == pytest.approx(1 / 3) and row.largest_by_chance > 0.36
    assert row.bias == pytest.approx(4 / 360)
    assert row.information_by_chance == pytest.approx(row.bias, rel=0.1)


def test_predictions_iterate_equation_2():
    shares = shares_of([[3, 1], [1, 3]])
    own = g.predicted_shares(shares, 2)
    assert column(own, "predicted", agent=1, iteration=0) == [0.75, 0.25]
    assert column(own, "predicted", agent=1, iteration=2) == pytest.approx(
        g.update(g.update(np.array([0.75, 0.25])))
    )
    drawn = g.predicted_shares(shares, 2, shares)
    assert column(drawn, "predicted", agent=2, iteration=0) == [0.5, 0.5]
    assert column(drawn, "predicted", agent=2, iteration=1) == pytest.approx([1.25 / 3, 1.75 / 3])
    assert column(drawn, "predicted", agent=2, iteration=2) == pytest.approx(
        g.update(np.array([1.25, 1.75]))
    )
    assert g.predicted_shares(shares, 0).iteration.max() == 0
    other = g.predicted_shares(shares, 0, shares_of([[1, 0], [2, 1]]))
    assert column(other, "predicted", agent=1) == [0.75, 0.25]


# Drawings


def test_figures_show_every_topic():
    skills = pd.DataFrame({"iteration": [0, 1] * 3, "topic": list("AABBCC"), "skill": [1 / 3] * 6})
    drawn = plots.by_iteration(skills.rename(columns={"skill": "mean"}), series="topic")
    assert drawn.get_legend_handles_labels()[1] == ["A", "B", "C"]
    shares = g.topic_shares([BASE, AFTER])
    measured = shares.merge(g.predicted_shares(shares, 1, shares)).query("agent == 1")
    names = {"share": "mean", "predicted": "expected"}
    drawn = plots.by_iteration(measured.rename(columns=names), series="topic")
    assert drawn.get_legend_handles_labels()[1] == ["style 1", "style 2"]
    plt.close("all")
