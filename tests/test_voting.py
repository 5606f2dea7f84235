"""The majority vote: equivalence-aware, independent of order, random only in ties."""

import itertools

from maft_lib.debate import majority_vote


def test_equivalent_answers_vote_together():
    assert majority_vote(["1/2", "3", "\\frac{1}{2}"], "mini_math", 0) == "1/2"


def test_order_never_matters():
    for answers in (["1", "2", "1", None], ["1", "2", "3"], ["0.5", "1/2", "4", "4.0", "7"]):
        winners = {majority_vote(p, "mini_math", 5) for p in itertools.permutations(answers)}
        assert len(winners) == 1


def test_ties_are_broken_by_the_seed_and_fairly():
    winners = [majority_vote(["1", "2", "3"], "arithmetic", seed) for seed in range(300)]
    assert all(70 < winners.count(answer) < 130 for answer in "123")


def test_unreadable_answers_do_not_vote():
    assert majority_vote([None, None, "4"], "arithmetic", 0) == "4"
    assert majority_vote(["pear", "pear", "4"], "arithmetic", 0) == "4"
    assert majority_vote([None, None], "arithmetic", 0) is None
