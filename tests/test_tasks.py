"""The generated tasks: right worked solutions, disjoint splits, the same problems for the same seed."""

import random
import re
from fractions import Fraction

import pytest

from maft_lib.grading import extract_answer, is_equivalent
from maft_lib.tasks import TASKS, draw, load_problems
from maft_lib.tasks.worked import solve


@pytest.mark.parametrize("task", TASKS)
def test_every_style_of_solution_ends_in_the_answer(task):
    rng = random.Random(1)
    for _ in range(300):
        worked = draw(task, rng, max_operand=9)
        for style in range(len(worked.styles)):
            solution = solve(worked, style)
            assert is_equivalent(extract_answer(solution.text, task), worked.answer, task)


@pytest.mark.parametrize("task", TASKS)
def test_written_steps_are_true_unless_they_slip(task):
    rng = random.Random(2)
    for _ in range(200):
        worked = draw(task, rng, max_operand=9)
        solution = solve(worked, rng.randrange(len(worked.styles)))
        for a, op, b, c in re.findall(r"(-?\d+)([-+*/%])(-?\d+)=(-?\d+)", solution.text):
            true = {
                "+": int(a) + int(b),
                "-": int(a) - int(b),
                "*": int(a) * int(b),
                "%": int(a) % (int(b) or 1),
            }
            assert int(c) == (Fraction(int(a), int(b)) if op == "/" else true[op])


def test_arithmetic_has_the_papers_form_and_value():
    for problem in load_problems("arithmetic", "eval", 50, max_operand=30):
        a, b, c, d, e, f = map(int, re.findall(r"\d+", problem.question))
        assert problem.question == f"What is the result of {a}+{b}*{c}+{d}-{e}*{f}?"
        assert int(problem.answer) == a + b * c + d - e * f
        assert max(a, b, c, d, e, f) <= 30


def test_slips_come_at_the_documented_rate():
    rng, right = random.Random(3), 0
    for _ in range(2000):
        worked = draw("arithmetic", rng, max_operand=9)
        right += solve(worked, 0, accuracy=0.55, rng=rng).text == solve(worked, 0).text
    assert 0.52 < right / 2000 < 0.58


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_disjoint_and_seeds_repeat(task):
    train = {p.id for seed in range(3) for p in load_problems(task, "train", 100, seed, max_operand=9)}
    evaluation = {
        p.id for seed in range(3) for p in load_problems(task, "eval", 100, seed, max_operand=9)
    }
    assert not train & evaluation
    first = load_problems(task, "eval", 50, seed=7)
    assert first == load_problems(task, "eval", 50, seed=7)
    assert first != load_problems(task, "eval", 50, seed=8)
    assert len({p.id for p in first}) == 50


def test_levels_choose_problems():
    assert {p.level for p in load_problems("mini_math", "eval", 30, levels=[1, 3])} == {1, 3}


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"task": "algebra"}, "unknown task 'algebra'"),
        ({"task": "arithmetic", "split": "test"}, "unknown split 'test'"),
        ({"task": "arithmetic", "levels": [1]}, "mini_math alone has levels"),
        ({"task": "mini_math", "levels": [9]}, "levels 1-5"),
        ({"task": "arithmetic", "data_dir": "/data"}, "leave data_dir out"),
        ({"task": "mini_math", "levels": [3], "num": 500}, "Ask for fewer"),
    ],
)
def test_bad_requests_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        load_problems(**arguments)
