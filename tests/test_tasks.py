"""The tasks: right worked solutions, disjoint splits, the same problems for the same seed, names."""

import hashlib
import random
import re
import time
from fractions import Fraction

import pytest

from maft_lib.grading import extract_answer, is_equivalent
from maft_lib.study import check_disjoint
from maft_lib.tasks import GENERATED, answer_type, canonical, load_problems
from maft_lib.tasks.generated import draw_split
from maft_lib.tasks.problem import normalised
from maft_lib.tasks.worked import boxes, solve, style_of


@pytest.mark.parametrize("task", GENERATED)
def test_every_style_of_solution_ends_in_the_answer(task):
    rng = random.Random(1)
    for _ in range(300):
        _, worked = draw_split(task, "eval", rng, max_operand=9)
        for style in range(len(worked.styles)):
            solution = solve(worked, style)
            assert is_equivalent(extract_answer(solution.text, task), worked.answer, task)


@pytest.mark.parametrize("task", GENERATED)
def test_written_steps_are_true_unless_they_slip(task):
    rng = random.Random(2)
    for _ in range(200):
        _, worked = draw_split(task, "eval", rng, max_operand=9)
        solution = solve(worked, rng.randrange(len(worked.styles)))
        for a, op, b, c in re.findall(r"(-?\d+)([-+*/%])(-?\d+)=(-?\d+)", solution.text):
            true = {
                "+": int(a) + int(b),
                "-": int(a) - int(b),
                "*": int(a) * int(b),
                "%": int(a) % (int(b) or 1),
            }
            assert int(c) == (Fraction(int(a), int(b)) if op == "/" else true[op])


@pytest.mark.parametrize("task", GENERATED)
def test_the_style_of_a_solution_is_recognised_slips_included(task):
    rng = random.Random(5)
    for _ in range(60):
        problem, worked = draw_split(task, "train", rng)
        for style in range(len(worked.styles)):
            slipped = solve(worked, style, accuracy=0.4, rng=rng)
            assert style_of(slipped.text, problem.styles) == style
    assert style_of("I do not know.", problem.styles) is None
    assert load_problems(task, "eval", 1)[0].styles


def test_arithmetic_has_the_papers_form_and_value():
    for problem in load_problems("arithmetic", "eval", 50, max_operand=30):
        a, b, c, d, e, f = map(int, re.findall(r"\d+", problem.question))
        assert problem.question == f"What is the result of {a}+{b}*{c}+{d}-{e}*{f}?"
        assert int(problem.answer) == a + b * c + d - e * f
        assert max(a, b, c, d, e, f) <= 30


def test_slips_come_at_the_documented_rate():
    rng, right = random.Random(3), 0
    for _ in range(2000):
        _, worked = draw_split("arithmetic", "corpus", rng, max_operand=9)
        right += solve(worked, 0, accuracy=0.55, rng=rng).text == solve(worked, 0).text
    assert 0.52 < right / 2000 < 0.58


@pytest.mark.parametrize("task", GENERATED)
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


def test_generated_problems_stay_the_ones_that_the_model_was_made_with():
    drawn = [p for task in GENERATED for p in load_problems(task, "eval", 100, max_operand=9)]
    text = "".join(f"{p.id}{p.question}{p.answer}{p.level}{p.subject}" for p in drawn)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6eacc2e41ad4cfc2"
    assert {p.source for p in drawn} == {"generated"}


@pytest.mark.parametrize("task", GENERATED)
def test_generated_splits_share_no_question_once_it_is_folded(task):
    check_disjoint(load_problems(task, "train", 300, seed=1), load_problems(task, "eval", 300, seed=2))


def test_names_answer_types_and_other_names():
    wanted = {"gsm": "number", "math": "expression", "mmlu": "choice", "arithmetic": "number"}
    assert {task: answer_type(task) for task in wanted} == wanted
    assert answer_type("reasoning_gym:anything") == "text"
    assert (canonical("gsm8k"), canonical("competition_math")) == ("gsm", "math")
    assert answer_type("gsm8k") == "number" and answer_type("competition_math") == "expression"


@pytest.mark.parametrize(
    "a, b",
    [
        ("What is  1+1?", "what is 1+1"),
        ("If $4^{a}=5$, find\\,$a$!", "If $4^a = 5$ find $a$ !"),
        ("\\dfrac{1}{2} of 1,000", "\\frac{1}{2} of 1000"),
        ("Janet’s “ducks”", 'Janet\'s "ducks"'),
        ("\\left( 3 \\right)", "(3)"),
    ],
)
def test_the_same_question_written_otherwise(a, b):
    assert normalised(a) == normalised(b)


@pytest.mark.parametrize(
    "a, b",
    [("1+2", "1-2"), ("1.5", "15"), ("$\\frac{12}{3}$", "$\\frac{1}{23}$"), ("x^2", "x_2"), ("é", "e")],
)
def test_different_questions_stay_different(a, b):
    assert normalised(a) != normalised(b)


BOXES = {
    r"a \boxed{1}, no, \boxed{\frac{1}{2}}.": r"\frac{1}{2}",
    r"\boxed{\{1, 2\}}": r"\{1, 2\}",
    r"\boxed{3} and \boxed{4": "3",
    r"\fbox{A} it is": "A",
    r"so $\boxed 5$": "5",
    r"\boxed {7}": "7",
    r"\boxed{x \boxed{y} z}": r"x \boxed{y} z",
    r"\boxed{}": "",
    r"Put it in a \boxed please": None,
    r"\boxedx{3}": None,
    "}{": None,
}


@pytest.mark.parametrize("text, content", BOXES.items())
def test_the_last_box(text, content):
    assert (boxes(text) or [None])[-1] == content


@pytest.mark.parametrize("hostile", [r"\boxed{", "\\", "{", "}", r"\boxed ", r"\boxed{}{", "\\boxed\n"])
def test_boxes_of_a_hostile_text_are_found_in_linear_time(hostile):
    start = time.perf_counter()
    boxes(hostile * (1_000_000 // len(hostile)))
    assert time.perf_counter() - start < 10


def test_levels_choose_problems():
    assert {p.level for p in load_problems("mini_math", "eval", 30, levels=[1, 3])} == {1, 3}
