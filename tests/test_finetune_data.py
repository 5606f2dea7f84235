"""Datasets worked out by hand from Algorithm 1."""

from dataclasses import replace

import pytest

from maft_lib.training.data import (
    build_finetuning_data,
    final_responses,
    right_responses,
)
from tests.conftest import debate

# answers[agent][round] and the vote; the vote is 2 where not said otherwise. Agent 1 covers all cases
# of a first and a last answer that agree (+) or do not (-) with the vote.
DEBATES = [
    debate([["2", "2"], ["2", "2"], ["2", "2"]], "2", "q0"),  # ++
    debate([["3", "2"], ["2", "2"], ["2", "2"]], "2", "q1"),  # -+
    debate([["2", "3"], ["2", "2"], ["3", "2"]], "2", "q2"),  # +-
    debate([["3", "3"], ["2", "2"], ["2", "2"]], "2", "q3"),  # --
    debate([[None, "2"], ["2", None], ["2", "2"]], "2", "q4"),  # unreadable, then +
    debate([["2", None], ["2", "2"], [None, None]], "2", "q5"),  # +, then unreadable
    debate([["1", "1"], ["2", "2"], ["3", "3"]], "3", "q6"),  # a tie that 3 won
    debate([["2.0", "02"], ["2", "2"], ["4", "2"]], "2", "q7"),  # equivalent, not equal
    debate([[None, None], [None, None], [None, None]], None, "q8"),  # no vote at all
]


def ids(examples):
    by_id = {d.problem.id: d.problem.question for d in DEBATES}
    return [by_id[example.problem_id] for example in examples]


def test_every_case_goes_where_algorithm_1_puts_it():
    first, second, third = build_finetuning_data(DEBATES, w=0.5)
    assert ids(first.generation) == ["q0", "q2", "q5", "q7"]
    assert ids(first.corrected) == ["q1", "q4"]
    assert ids(first.kept) == ["q0", "q7"]
    assert ids(second.generation) == ["q0", "q1", "q2", "q3", "q4", "q5", "q7"]
    assert ids(second.corrected) == []
    assert ids(second.kept) == ["q0", "q1", "q2", "q3", "q5", "q7"]
    assert ids(third.generation) == ["q0", "q1", "q3", "q4", "q6"]
    assert ids(third.corrected) == ["q2", "q7"]
    assert ids(third.kept) == ["q0", "q1", "q3", "q4", "q6"]


def test_what_an_example_says():
    first = build_finetuning_data(DEBATES, w=1)[0]
    assert first.generation[0].messages == (
        {"role": "user", "content": "q0 round 0"},
        {"role": "assistant", "content": "I say \\boxed{2}."},
    )
    assert [m["content"] for m in first.corrected[0].messages] == [
        "q1 round 0",
        "I say \\boxed{3}.",
        "q1 round 1",
        "I say \\boxed{2}.",
    ]


@pytest.mark.parametrize(
    "w, corrected, kept, chosen",
    [
        (0.5, 10, 100, (10, 10)),
        (0.5, 100, 10, (10, 10)),
        (0.25, 10, 100, (10, 30)),
        (0.25, 40, 30, (10, 30)),
        (0, 10, 100, (0, 100)),
        (1, 10, 100, (10, 0)),
        (0.5, 0, 100, (0, 0)),
        (0.2, 3, 100, (3, 12)),
        (0.3, 10, 100, (10, 23)),
    ],
)
def test_the_mixture_is_the_largest_of_its_proportion(w, corrected, kept, chosen):
    wrong = [debate([["3", "2"], ["2", "2"]], "2", f"wrong {i}") for i in range(corrected)]
    right = [debate([["2", "2"], ["2", "2"]], "2", f"right {i}") for i in range(kept)]
    data = build_finetuning_data(wrong + right, w)[0]
    drawn = [example in data.corrected for example in data.critic]
    assert (sum(drawn), len(drawn) - sum(drawn)) == chosen
    assert len({e.problem_id for e in data.critic}) == len(data.critic)


def test_the_seed_decides_who_is_left_out():
    debates = [debate([["3", "2"], ["2", "2"]], "2", "wrong")]
    debates += [debate([["2", "2"], ["2", "2"]], "2", f"right {i}") for i in range(50)]
    chosen = [build_finetuning_data(debates, 0.5, seed)[0].critic for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_single_agent_data_pools_the_last_round():
    examples = final_responses(DEBATES[:3])
    assert ids(examples) == ["q0", "q0", "q0", "q1", "q1", "q1", "q2", "q2"]
    assert all(len(example.messages) == 2 for example in examples)
    assert examples[3].messages[0]["content"] == "q1 round 0"


def test_three_rounds_are_kept_whole():
    data = build_finetuning_data([debate([["3", "4", "2"], ["2", "2", "2"]], "2")], w=1)[0]
    assert len(data.critic[0].messages) == 6


def cut(debate, agent, number):
    """The debate, in which one response ran into the limit of new tokens."""
    turns = [list(own) for own in debate.turns]
    turns[agent][number] = replace(turns[agent][number], finish_reason="length")
    return replace(debate, turns=tuple(map(tuple, turns)))


def test_a_cut_first_response_is_learned_by_nobody():
    whole, broken = DEBATES[0], cut(DEBATES[0], 0, 0)
    first, second, _ = build_finetuning_data([broken], w=0)
    assert (first.generation, first.kept, first.corrected, first.critic) == ([], [], [], [])
    assert second == build_finetuning_data([whole], w=0)[1]
    assert len(right_responses([broken])) == len(right_responses([whole])) - 1
    assert build_finetuning_data([cut(DEBATES[1], 0, 0)], w=1)[0].corrected == []


def test_a_cut_last_response_is_learned_by_nobody():
    whole, broken = DEBATES[0], cut(DEBATES[0], 0, -1)
    first = build_finetuning_data([broken], w=0)[0]
    assert len(first.generation) == 1 and not first.kept and not first.critic
    assert len(final_responses([broken])) == len(final_responses([whole])) - 1
    assert build_finetuning_data([cut(DEBATES[1], 0, 1)], w=1)[0].corrected == []
