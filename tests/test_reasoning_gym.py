"""Tasks of the reasoning_gym package: disjoint splits, its own scorers, and which are refused."""

import inspect
import json
import re
import sys

import pytest

from maft_lib.grading import is_correct
from maft_lib.study import check_disjoint
from maft_lib.tasks import load_problems
from maft_lib.tasks.problem import DataError, Problem
from maft_lib.tasks.reasoning_gym import SAFE

pytest.importorskip("reasoning_gym")


def test_reasoning_gym_splits_are_disjoint_and_repeat():
    drawn = [
        [load_problems("reasoning_gym:chain_sum", split, 40, seed) for split in ("train", "eval")]
        for seed in range(3)
    ]
    check_disjoint(*([p for both in drawn for p in both[i]] for i in (0, 1)))
    assert drawn[0][1] == load_problems("reasoning_gym:chain_sum", "eval", 40, 0) != drawn[1][1]


@pytest.mark.parametrize(
    "name", ["gsm_symbolic", "chain_sum", "gcd", "spell_backward", "leg_counting", "ab"]
)
def test_accepted_datasets_score_their_own_answers_right(name):
    for problem in load_problems(f"reasoning_gym:{name}", "eval", 5):
        assert is_correct(problem.answer, problem)
        assert not is_correct("no idea", problem) and not is_correct("9" * 20_000, problem)


@pytest.mark.parametrize(
    "name",
    ["countdown", "puzzle24", "simple_integration", "intermediate_integration", "string_insertion",
     "polynomial_multiplication", "codeio", "n_queens", "number_sorting", "bitwise_arithmetic",
     "binary_matrix", "spiral_matrix", "propositional_logic", "rubiks_cube", "composite", "arc_agi",
     "graph_color"],
)  # fmt: skip
def test_datasets_that_could_execute_or_cannot_score_an_answer_are_refused(name):
    with pytest.raises(DataError, match=f"reasoning_gym:{name} .* not safe"):
        load_problems(f"reasoning_gym:{name}", "eval", 1)
    problem = Problem("1", name, "Q?", "1", scoring=json.dumps({"name": name, "entry": {}}))
    with pytest.raises(DataError, match="not safe"):
        is_correct("1", problem)


def test_an_answer_that_keeps_a_scorer_busy_is_wrong():
    (problem,) = load_problems("reasoning_gym:coin_flip", "eval", 1)
    assert not is_correct("1e999999999", problem)
    assert is_correct(problem.answer, problem)


def test_no_safe_scorer_names_an_executing_function():
    factory = pytest.importorskip("reasoning_gym.factory")
    executing = re.compile(r"\b(eval|exec|compile|parse_expr|sympify|literal_eval|lambdify)\b")
    for name in SAFE:
        scorer = inspect.getsource(factory.DATASETS[name][0].score_answer)
        assert not executing.search(scorer), name


def test_unknown_datasets_and_a_missing_package(monkeypatch):
    with pytest.raises(DataError, match="did you mean 'reasoning_gym:gsm_symbolic'"):
        load_problems("reasoning_gym:gsm_symbolik", "eval", 1)
    with pytest.raises(ValueError, match="reasoning_gym:gcd has no levels"):
        load_problems("reasoning_gym:gcd", "eval", 1, levels=[1])
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r"pip install 'maft_lib\[reasoning-gym\]'"):
        load_problems("reasoning_gym:gsm_symbolic", "eval", 1)
