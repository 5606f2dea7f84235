"""Statistics: the same as scipy's and statsmodels', intervals that cover as often as they say."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from maft_lib.metrics import statistics


def answers(*accuracies, num=200, seed=0, correlation=0.5):
    """Correctness (num,) of methods on the same problems, some of which are hard for all."""
    rng = np.random.default_rng(seed)
    shared, own = rng.random(num), rng.random((len(accuracies), num))
    draws = np.where(rng.random((len(accuracies), num)) < correlation, shared, own)
    return [draw < accuracy for draw, accuracy in zip(draws, accuracies)]


def paired(a, b, problems=None, **keywords):
    return SimpleNamespace(**statistics.paired_difference(a, b, problems, **keywords))


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


@pytest.mark.parametrize("seed", range(8))
def test_mcnemar_is_statsmodels_exact_one(seed):
    a, b = answers(0.7, 0.6, num=60, seed=seed)
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    assert paired(a, b).p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    assert paired(a, b).p == paired(b, a).p


def test_mcnemar_without_discordant_pairs_and_by_hand():
    assert paired([1, 0, 1], [1, 0, 1]).p == 1.0
    assert paired([1] * 6, [0] * 6).p == pytest.approx(2 / 2**6)


def test_mcnemar_counts_a_repeated_problem_once():
    a, b = answers(0.7, 0.6, num=60)
    thrice = paired(np.tile(a, 3), np.tile(b, 3), problems=np.tile(np.arange(60), 3)).p
    assert thrice == paired(a, b).p > paired(np.tile(a, 3), np.tile(b, 3)).p


def test_the_standard_error_of_pairs_is_that_of_the_differences_or_of_clusters():
    a, b = answers(0.7, 0.6)
    difference = a.astype(float) - b
    error = paired(a, b).standard_error
    assert error == pytest.approx(difference.std() / math.sqrt(len(a)))
    means = difference.reshape(50, 4).mean(1)
    clustered = paired(a, b, np.repeat(np.arange(50), 4)).standard_error
    assert clustered == pytest.approx(means.std() / math.sqrt(50))


def test_the_bootstrap_is_scipys():
    a, b = answers(0.7, 0.6)
    found = paired(a, b, num_resamples=20_000)
    gains = (a.astype(float) - b,)
    reference = stats.bootstrap(gains, np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert found.difference == pytest.approx(gains[0].mean())
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval), abs=0.004)


def test_the_bootstrap_is_seeded_and_turns_its_sign_with_its_methods():
    a, b = answers(0.7, 0.6)
    there, back = paired(a, b), paired(b, a)
    assert there == paired(a, b)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.006)
    assert paired(a, b, num_resamples=99) != paired(a, b, num_resamples=99, seed=1)
    same = paired(a, a)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_repeated_problems_do_not_narrow_anything():
    a, b = answers(0.7, 0.6)
    twice = paired(np.tile(a, 2), np.tile(b, 2), problems=[*range(200)] * 2)
    assert vars(twice) == pytest.approx(vars(paired(a, b)))


@pytest.mark.parametrize("better, worse", [(0.6, 0.6), (0.7, 0.6), (0.85, 0.5)])
def test_the_bootstrap_covers_as_often_as_it_says(better, worse):
    trials, covered, false_alarms = 2500, 0, 0
    for seed in range(trials):
        a, b = answers(better, worse, num=500, seed=seed)
        found = paired(a, b, num_resamples=1000, seed=seed)
        covered += found.low <= better - worse <= found.high
        false_alarms += found.p < 0.05
    assert covered / trials == pytest.approx(0.95, abs=0.01)
    if better == worse:
        assert false_alarms / trials <= 0.05


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


def test_compare_holds_each_method_against_the_strongest_baseline():
    base, debate, ours = answers(0.5, 0.6, 0.8, num=300)
    frame = scores({"base": base, "debate": debate, "ours": ours})
    table = statistics.compare(frame, ["base", "debate"]).set_index("method")
    row = table.loc["ours"]
    assert row.baseline == "debate" and row.problems == 300
    assert row.accuracy == pytest.approx(100 * ours.mean())
    assert row.difference == pytest.approx(100 * (ours.mean() - debate.mean()))
    assert row.standard_error == pytest.approx(100 * paired(ours, debate).standard_error)
    found = paired(ours, debate)
    assert (row.low, row.high) == pytest.approx((100 * found.low, 100 * found.high))
    assert row.p == row.p_holm == found.p and row.significant
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
    with pytest.raises(ValueError, match="the methods of 'gsm' answer different problems"):
        statistics.compare(frame.drop(frame.index[-1]))
    with pytest.raises(ValueError, match="the methods of 'gsm' answer different problems"):
        statistics.compare(frame.assign(seed=(frame.method == "ours").astype(int)))
    with pytest.raises(ValueError, match="duplicate"):
        statistics.compare(pd.concat([frame, frame]))


def test_standard_errors_apart():
    assert statistics.standard_errors_apart(75, 3, 70, 4) == 1
    assert statistics.standard_errors_apart(70, 4, 75, 3) == -1
    assert math.isnan(statistics.standard_errors_apart(100, 0, 99, 0))
    assert math.isnan(statistics.standard_errors_apart(100, math.nan, 99, 1))


@pytest.mark.parametrize("num, discordant", [(200, 0.3), (1500, 0.4)])
def test_the_smallest_difference_is_found_four_times_in_five(num, discordant):
    smallest = statistics.smallest_difference(discordant, num)
    shares = [(discordant + smallest) / 2, (discordant - smallest) / 2, 1 - discordant]
    found = np.random.default_rng(0).multinomial(num, shares, size=4000)[:, :2]
    power = np.mean([stats.binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b in found])
    assert power == pytest.approx(0.8, abs=0.04)  # the exact test is a little more careful
    assert statistics.smallest_difference(discordant, 4 * num) == pytest.approx(smallest / 2, rel=0.05)


def seeded(*parts):
    """Correctness by seed and problem, a part per seed."""
    return pd.concat(
        {seed: pd.Series(part) for seed, part in enumerate(parts)}, names=["seed", "problem"]
    )


def test_a_verdict_wants_the_interval_and_every_seed():
    low, high = zip(*(answers(0.5, 0.7, num=300, seed=seed) for seed in range(3)))
    found = statistics.contrast(seeded(*high), seeded(*low))
    assert found["verdict"] == "supported" and found["n"] == 900 and len(found["seeds"]) == 3
    assert found["difference"] == pytest.approx(100 * (np.mean(high) - np.mean(low)))
    assert found["p"] == paired(np.concatenate(high), np.concatenate(low)).p
    assert 0 < found["smallest"] < found["difference"]
    assert statistics.contrast(seeded(*low), seeded(*high))["verdict"] == "not supported"
    worse = high[2] & (np.arange(300) != np.argmax(high[2]))  # by one problem
    mixed = statistics.contrast(seeded(*high[:2], worse), seeded(*low[:2], high[2]))
    assert mixed["low"] > 0 > min(mixed["seeds"]) and mixed["verdict"] == "cannot be told here"
    assert statistics.contrast(seeded(*low), seeded(*low))["verdict"] == "cannot be told here"
    with pytest.raises(ValueError, match="different problems"):
        statistics.contrast(seeded(*low), seeded(*low[:2]))


def test_the_interval_within_seeds_covers_as_often_as_it_says():
    covered = 0
    for trial in range(400):
        a, b = zip(*(answers(0.7, 0.6, num=200, seed=1000 * trial + seed) for seed in range(3)))
        found = statistics.contrast(seeded(*a), seeded(*b), num_resamples=500, seed=trial)
        covered += found["low"] <= 10 <= found["high"]
    assert covered / 400 == pytest.approx(0.95, abs=0.025)
