"""Statistics: the same as scipy's and statsmodels', intervals that cover as often as they say."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from maft_lib.metrics import statistics


def answers(*accuracies, num=200, seed=0, correlation=0.5):
    """Correctness (num,) of methods on the same problems, some of which are hard for all."""
    rng = np.random.default_rng(seed)
    shared, own = rng.random(num), rng.random((len(accuracies), num))
    draws = np.where(rng.random((len(accuracies), num)) < correlation, shared, own)
    return [draw < accuracy for draw, accuracy in zip(draws, accuracies)]


def scores(columns, task="gsm", seed=0):
    """A frame of scores from {method: correctness}."""
    frames = [
        pd.DataFrame({"method": m, "task": task, "seed": seed, "problem": range(len(c)), "correct": c})
        for m, c in columns.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_the_standard_error_is_the_papers():
    correct = np.arange(500) < 428  # 85.60 % of 500 problems: 1.57, of 1,000: 1.11 (Table 1)
    assert 100 * statistics.standard_error(correct) == pytest.approx(1.57, abs=0.005)
    assert 100 * statistics.standard_error(np.tile(correct, 2)) == pytest.approx(1.11, abs=0.005)
    assert statistics.standard_error([True] * 9) == 0
    assert math.isnan(statistics.standard_error_of_mean([3]))
    assert statistics.standard_error_of_mean([1, 3]) == pytest.approx(1)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("right, num", [(0, 5), (1, 1), (7, 20), (428, 500), (500, 500)])
def test_wilson_is_statsmodels(right, num, confidence):
    interval = statistics.wilson_interval(np.arange(num) < right, confidence)
    wanted = proportion_confint(right, num, alpha=1 - confidence, method="wilson")
    assert interval == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("num", [200, 500, 1000])
def test_wilson_covers_as_often_as_it_says(num):
    rights = np.arange(num + 1)
    bounds = np.array([statistics.wilson_interval(np.arange(num) < right) for right in rights])
    for share in (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9):
        inside = (bounds[:, 0] <= share) & (share <= bounds[:, 1])
        assert stats.binom.pmf(rights, num, share)[inside].sum() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_mcnemar_is_statsmodels_exact_one(seed):
    a, b = answers(0.7, 0.6, num=60, seed=seed)
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    assert statistics.mcnemar(a, b) == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    assert statistics.mcnemar(a, b) == statistics.mcnemar(b, a)


def test_mcnemar_without_discordant_pairs_and_by_hand():
    assert statistics.mcnemar([1, 0, 1], [1, 0, 1]) == 1.0
    assert statistics.mcnemar([1] * 6, [0] * 6) == pytest.approx(2 / 2**6)


def test_mcnemar_counts_a_repeated_problem_once():
    a, b = answers(0.7, 0.6, num=60)
    thrice = statistics.mcnemar(np.tile(a, 3), np.tile(b, 3), problems=np.tile(np.arange(60), 3))
    assert thrice == statistics.mcnemar(a, b) > statistics.mcnemar(np.tile(a, 3), np.tile(b, 3))


def test_paired_standard_error_is_that_of_the_differences_or_of_clusters():
    a, b = answers(0.7, 0.6)
    difference = a.astype(float) - b
    error = statistics.paired_standard_error(a, b)
    assert error == pytest.approx(difference.std() / math.sqrt(len(a)))
    problems = np.repeat(np.arange(50), 4)
    means = difference.reshape(50, 4).mean(1)
    clustered = statistics.paired_standard_error(a, b, problems)
    assert clustered == pytest.approx(means.std() / math.sqrt(50))
    twice = statistics.paired_standard_error(np.tile(a, 2), np.tile(b, 2), [*range(200)] * 2)
    assert twice == pytest.approx(error)


def test_the_bootstrap_is_scipys():
    a, b = answers(0.7, 0.6)
    difference, low, high, p = statistics.paired_bootstrap(a, b, 20_000)
    gains = (a.astype(float) - b,)
    reference = stats.bootstrap(gains, np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert difference == pytest.approx(gains[0].mean())
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.004)
    drawn = reference.bootstrap_distribution
    wanted = 2 * min((drawn <= 1e-12).mean(), (drawn >= -1e-12).mean())
    assert p == pytest.approx(wanted, abs=0.005)


def test_the_bootstrap_is_seeded_and_turns_its_sign_with_its_methods():
    a, b = answers(0.7, 0.6)
    there, back = statistics.paired_bootstrap(a, b), statistics.paired_bootstrap(b, a)
    assert there == statistics.paired_bootstrap(a, b)
    assert there[0] == -back[0]
    assert there[1:3] == pytest.approx((-back[2], -back[1]), abs=0.006)
    assert there[3] == pytest.approx(back[3], abs=0.03)
    assert there[1:] != statistics.paired_bootstrap(a, b, seed=1)[1:]
    assert statistics.paired_bootstrap(a, a) == (0, 0, 0, 1)
    assert statistics.paired_bootstrap([1] * 9, [0] * 9, 99) == (1, 1, 1, 2 / 100)
    assert statistics.paired_bootstrap(a, b, confidence=0.5)[1] > there[1]


def test_repeated_problems_do_not_narrow_the_bootstrap():
    a, b = answers(0.7, 0.6)
    once = statistics.paired_bootstrap(a, b)
    twice = statistics.paired_bootstrap(np.tile(a, 2), np.tile(b, 2), problems=[*range(200)] * 2)
    assert twice == pytest.approx(once)


@pytest.mark.parametrize("better, worse", [(0.6, 0.6), (0.7, 0.6), (0.85, 0.5)])
def test_the_bootstrap_covers_as_often_as_it_says(better, worse):
    trials, covered, false_alarms = 2500, 0, 0
    for seed in range(trials):
        a, b = answers(better, worse, num=500, seed=seed)
        _, low, high, p = statistics.paired_bootstrap(a, b, 1000, seed=seed)
        covered += low <= better - worse <= high
        false_alarms += p < 0.05
    assert covered / trials == pytest.approx(0.95, abs=0.01)
    if better == worse:
        assert false_alarms / trials == pytest.approx(0.05, abs=0.015)


def test_holm_is_statsmodels():
    rng = np.random.default_rng(0)
    for num in (1, 2, 7, 40):
        p = rng.random(num) ** 3
        assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    p = np.array([0.04, np.nan, 0.01, 0.01, np.nan, 1.0])
    adjusted = statistics.holm(p)
    made = ~np.isnan(p)
    assert adjusted[made] == pytest.approx(multipletests(p[made], method="holm")[1])
    assert np.isnan(adjusted[~made]).all() and statistics.holm([]).size == 0
    assert (np.diff(adjusted[made][np.argsort(p[made])]) >= 0).all()
    with pytest.raises(ValueError, match="between 0 and 1, but one is 1.5"):
        statistics.holm([0.5, 1.5])


def test_compare_holds_each_method_against_the_strongest_baseline():
    base, debate, ours = answers(0.5, 0.6, 0.8, num=300)
    frame = scores({"base": base, "debate": debate, "ours": ours})
    table = statistics.compare(frame, ["base", "debate"]).set_index("method")
    row = table.loc["ours"]
    assert row.baseline == "debate" and row.problems == 300
    assert row.accuracy == pytest.approx(100 * ours.mean())
    assert row.difference == pytest.approx(100 * (ours.mean() - debate.mean()))
    assert row.standard_error == pytest.approx(100 * statistics.paired_standard_error(ours, debate))
    bounds = statistics.paired_bootstrap(ours, debate)[1:3]
    assert (row.low, row.high) == pytest.approx((100 * bounds[0], 100 * bounds[1]))
    assert row.p == row.p_holm == statistics.mcnemar(ours, debate) and row.significant
    assert table.loc["base", "baseline"] is None and np.isnan(table.loc["debate", "p_holm"])
    assert not table.loc["debate", "significant"]


def test_compare_without_baselines_takes_the_best_of_the_others_and_corrects_over_all():
    base, debate, ours = answers(0.5, 0.6, 0.8, num=300)
    easy = scores({"base": base, "debate": debate, "ours": ours})
    hard = scores({"base": base, "ours": base}, task="math")
    table = statistics.compare(pd.concat([easy, hard]))
    assert list(table.baseline) == ["ours", "ours", "debate", "ours", "base"]
    assert list(table.task) == ["gsm"] * 3 + ["math"] * 2
    assert table.p_holm.to_numpy() == pytest.approx(multipletests(table.p, method="holm")[1])
    assert table.difference[1] == -table.difference[2] and list(table.p[3:]) == [1, 1]
    alone = statistics.compare(easy[easy.method == "ours"])
    assert alone.baseline[0] is None and np.isnan(alone.p_holm[0])


def test_compare_pairs_by_problem_whatever_the_order_of_rows():
    a, b = answers(0.6, 0.8)
    frame = scores({"base": a, "ours": b})
    shuffled = frame.sample(frac=1, random_state=0)
    shuffled = shuffled.sort_values("method", key=lambda m: m != "base", kind="stable")
    pd.testing.assert_frame_equal(statistics.compare(frame), statistics.compare(shuffled))


def test_compare_takes_a_problem_of_two_seeds_once_and_those_of_different_seeds_each():
    a, b = answers(0.6, 0.8)
    one = scores({"base": a, "ours": b})
    same = pd.concat([one, one.assign(seed=1)])
    columns = ["difference", "standard_error", "low", "high", "p"]
    once, again = statistics.compare(one)[columns], statistics.compare(same)[columns]
    np.testing.assert_allclose(again, once)
    other = pd.concat([one, one.assign(seed=1, problem=one.problem + 1000)])
    table = statistics.compare(other)
    assert table.problems[0] == 400
    assert table.standard_error[0] == pytest.approx(once.standard_error[0] / math.sqrt(2))


def test_what_cannot_be_paired_is_said():
    a, b = answers(0.6, 0.8, num=20)
    frame = scores({"base": a, "ours": b})
    with pytest.raises(ValueError, match="on 'gsm' 'ours' lacks 1 of the 20 problems"):
        statistics.compare(frame.drop(frame.index[-1]))
    with pytest.raises(ValueError, match="on 'gsm' .* lacks 20 of the 40 problems"):
        statistics.compare(frame.assign(seed=(frame.method == "ours").astype(int)))
    with pytest.raises(
        ValueError, match="'base' on 'gsm' answers problem '0' of seed 0 more than once"
    ):
        statistics.compare(pd.concat([frame, frame]))
    with pytest.raises(ValueError, match="no scores of the baseline 'debate'; there are base, ours"):
        statistics.compare(frame, ["debate"])
    with pytest.raises(ValueError, match="lacks seed, correct"):
        statistics.compare(frame.drop(columns=["seed", "correct"]))
    with pytest.raises(ValueError, match=r"shapes are \(2,\) and \(3,\)"):
        statistics.mcnemar([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="empty"):
        statistics.paired_bootstrap([], [])
    with pytest.raises(ValueError, match="empty"):
        statistics.wilson_interval([])


def test_spread_over_seeds_sets_seeds_and_problems_apart():
    rng = np.random.default_rng(0)
    frames = [
        scores({"ours": rng.random(400) < 0.7}, seed=seed).assign(iteration=1) for seed in range(40)
    ]
    frame = pd.concat([*frames, scores({"ours": [1, 0]}).assign(iteration=2)])
    table = statistics.spread_over_seeds(frame)
    first, single = table.iloc[0], table.iloc[1]
    assert (first.seeds, first.problems, single.seeds) == (40, 400, 1)
    assert first["mean"] == pytest.approx(70, abs=1)
    assert first.sampling_error == pytest.approx(100 * math.sqrt(0.7 * 0.3 / 400), rel=0.02)
    # Nothing but problems differs between these seeds.
    assert first.std_between_seeds == pytest.approx(first.sampling_error, rel=0.25)
    assert math.isnan(single.std_between_seeds) and single.sampling_error == pytest.approx(
        50 / math.sqrt(2)
    )


def test_standard_errors_apart():
    assert statistics.standard_errors_apart(75, 3, 70, 4) == 1
    assert statistics.standard_errors_apart(70, 4, 75, 3) == -1
    assert math.isnan(statistics.standard_errors_apart(100, 0, 99, 0))
    assert math.isnan(statistics.standard_errors_apart(100, math.nan, 99, 1))
