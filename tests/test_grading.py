"""Which answer a response gives, and which answers are the same: the table, real data, fuzz."""

import csv
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maft_lib.debate import majority_vote
from maft_lib.grading import extract_answer, group_equivalent, is_correct, is_equivalent
from maft_lib.tasks import load_problems
from tests.conftest import DATA, problem

TABLE = Path(__file__).with_name("grading_cases.tsv")


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


CASES, TEXTS = rows(TABLE), rows(TABLE.with_name("unboxed_texts.tsv"))
CATEGORIES = sorted({case["category"] for case in CASES})
GOLDS = sorted({case["gold"] for case in CASES if case["task"] == "math" and case["gold"]})


@pytest.mark.parametrize(
    "text, task, answer",
    [
        ("so \\boxed{12}.", "arithmetic", "12"),
        ("agent 1 said \\boxed{3}, I say \\boxed{-4}", "arithmetic", "-4"),
        ("\\boxed{\\frac{1}{2}}", "mini_math", "\\frac{1}{2}"),
        ("\\boxed{x^{2}+{3}} and \\boxed{unfinished", "mini_math", "x^{2}+{3}"),
        ("so $\\fbox{\\{1, 2\\}}$", "math", "\\{1, 2\\}"),
        ("thus \\boxed 7", "gsm", "7"),
        ("work\n#### 1,250", "mini_gsm", "1,250"),
        ("The answer is 7.", "mini_gsm", "7"),
        ("The answer is $1,250.50 per day", "gsm", "$1,250.50 per day"),
        ("The answer is 12 apples and 3 pears", "gsm", "12"),
        ("The final answer is **42**", "gsm", "42"),
        ("Answer:\n\n42", "gsm", "42"),
        ("so she has 12 + 30 = 42 apples left.", "gsm", "42"),
        ("5-7=-2", "arithmetic", "-2"),
        ("The answer is $\\frac{1}{2}$, since the rest is lost.", "math", "\\frac{1}{2}"),
        ("the final answer is: x = 5. I hope it is correct.", "math", "x = 5"),
        ("Final Answer: The largest $n$ is 34.", "math", "34"),
        ("Thus \\(x=\\frac{3}{4}\\).", "math", "x=\\frac{3}{4}"),
        ("the answer is the interval $[0,1)$", "math", "[0,1)"),
        ("\\boxed{(B)}", "mini_mmlu", "B"),
        ("\\boxed{\\text{c) a dog}}", "mmlu", "C"),
        ("**Answer: C**", "mmlu", "C"),
        ("answer: b", "mmlu", "B"),
        ("The correct answer is B. Paris", "mmlu", "B"),
        ("So it must be (D).", "mmlu", "D"),
        ("Option C is right", "mmlu", "C"),
        ("- 15 apples", "gsm", "15"),
        ("#### 2. Compute the total\nSo it is 18.", "gsm", "18"),
        ("The answer is not 20.\nIt is 18.", "gsm", "18"),
        ("\\boxed{5}. (format: \\boxed{answer})", "math", "5"),
        ("The value of x is 5.", "math", "5"),
        ("The area is 12π.", "math", "12π"),
        ("The roots are $2$ and $3$.", "math", "2 and 3"),
        ("The answer is A or B.", "mmlu", None),
        ("The answer is not A.", "mmlu", None),
        ("\\boxed{\\textbf{(B)}\\ 20}", "mmlu", "B"),
        ("The answer is A, B", "mmlu", None),
        ("\\boxed{A and B}", "mmlu", None),
        ("I think a dog", "mmlu", None),
        ("\\boxed{apples}", "mini_gsm", None),
        ("\\boxed{apples} or rather 12", "mini_gsm", None),
        ("\\boxed{}", "mini_math", None),
        ("I do not know", "arithmetic", None),
        ("", "math", None),
        ("\\boxed{" + "9" * 5000 + "}", "arithmetic", None),
        ("I say <answer>12, 13</answer>", "reasoning_gym:chain_sum", "12, 13"),
    ],
)
def test_the_final_answer_of_a_response(text, task, answer):
    assert extract_answer(text, task) == answer


@pytest.mark.parametrize(
    "text, letter",
    [
        ("\\boxed{Paris}", "B"),
        ("The answer is paris.", "B"),
        ("\\boxed{(C)}", None),
        ("\\boxed{Rome}", None),
    ],
)
def test_the_text_of_an_option_chooses_it(text, letter):
    assert extract_answer(text, "mmlu", options=("London", "Paris")) == letter


@pytest.mark.parametrize(
    "text, whole, cut",
    [
        ("so \\boxed{12}. Let me check: 3", "12", "12"),
        ("The answer is 12", "12", None),
        ("The answer is 12.", "12", "12"),
        ("The answer is 12. Let me check that 3", "12", "12"),
        ("**Answer: 12**\nTo check, 3", "12", "12"),
        ("#### 12", "12", None),
        ("#### 12\n", "12", "12"),
        ("so <answer>12</answer>", "12", "12"),
        ("She has 3 + 9 = 12 apples.", "12", None),
        ("so \\boxed 12", "12", None),
        ("The answer is \\boxed{12", None, None),
        ("She has 12. The answer is x = \\boxed{12", None, None),
        ("The answer is 12.\nSo \\boxed{1", "12", "12"),
        ("\\boxed{answer}\nThe answer is 12.", "12", "12"),
    ],
)
def test_a_response_that_is_cut_answers_only_in_whole_statements(text, whole, cut):
    assert extract_answer(text, "gsm") == whole
    assert extract_answer(text, "gsm", cut=True) == cut


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_table_of_cases(category):
    """Every case of `grading_cases.tsv`, both ways round."""
    wrong = []
    for case in (case for case in CASES if case["category"] == category):
        a, b = case["gold"], case["answer"]
        found = {is_equivalent(a, b, case["task"]), is_equivalent(b, a, case["task"])}
        if found != {case["same"] == "yes"}:
            wrong.append((case["task"], a, b, case["same"], case["why"]))
    assert not wrong


@pytest.mark.parametrize("trap", ["no", "yes"])
def test_texts_of_small_models_without_a_box(trap):
    """`unboxed_texts.tsv`: what a careful teacher reads in them, half of them with a trap."""
    wrong = []
    for case in (case for case in TEXTS if case["trap"] == trap):
        text, right = case["text"].replace("⏎", "\n"), case["answer"]
        found = extract_answer(text, case["task"])
        if found is not None if right == "-" else not is_equivalent(found, right, case["task"]):
            wrong.append((text, right, found))
    assert not wrong


def test_the_table_is_large_and_even():
    assert len(CASES) >= 300
    assert min(Counter(case["same"] for case in CASES).values()) >= 100
    assert min(Counter(case["category"] for case in CASES).values()) >= 10


def test_none_and_unknown_tasks():
    assert not is_equivalent(None, None, "math")
    assert not is_equivalent("5", None, "math")
    with pytest.raises(ValueError, match="did you mean 'math'"):
        is_equivalent("5", "5", "maths")


def test_free_text_and_a_task_with_its_own_scorer():
    assert is_equivalent("Two  words", "two words", "reasoning_gym:spell_backward")
    assert is_equivalent("7", "7.0", "reasoning_gym:chain_sum")
    assert not is_equivalent("one", "two", "reasoning_gym:spell_backward")
    for drawn in load_problems("reasoning_gym:chain_sum", "eval", 3):
        assert is_correct(drawn.answer, drawn)
        assert not is_correct("no", drawn) and not is_correct(None, drawn)


# --- ground truth against itself and against others ---------------------------------------------


def records(task):
    """Questions with ground truth: all of the real data where it is, else 200 and more of our own."""
    if DATA is None and task == "gsm":
        return [replace(p, task="gsm") for p in load_problems("mini_gsm", "eval", 200)]
    if DATA is None:
        return [problem(str(n), gold, "math") for n, gold in enumerate(GOLDS)]
    return [p for split in ("train", "eval") for p in all_problems(task, split)]


def all_problems(task, split):
    from maft_lib.tasks import published

    return published.pool(task, split, str(DATA), "skip")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("task", ["gsm", "math"])
def test_every_gold_answer_is_right_and_a_constant_one_is_not(task):
    problems = records(task)
    assert len(problems) >= 200
    for p in problems:
        boxed = extract_answer(f"After all of this we find $\\boxed{{{p.answer}}}$, as asked.", task)
        assert is_correct(p.answer, p), p.answer
        assert is_correct(boxed, p), p.answer
        assert not is_correct("-987654321", p), p.answer


EQUAL = Path(__file__).with_name("equal_golds.tsv")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_problems_gold_answers_are_wrong():
    """Each MATH answer against twenty others; `equal_golds.tsv` has the pairs that mean the same."""
    if DATA is None:
        pytest.skip("the real data is not here")
    golds = sorted(p.answer for p in records("math"))
    rng, equal = random.Random(0), set()
    for gold in golds:
        for other in rng.sample(golds, 20):
            if gold != other and is_equivalent(gold, other, "math"):
                equal.add("\t".join(sorted((gold, other))))
    known = set(EQUAL.read_text(encoding="utf-8").splitlines())
    assert equal <= known, sorted(equal - known)
    assert len(equal) > 20


# --- whatever a model writes ---------------------------------------------------------------------

PIECES = st.sampled_from(
    [*r"0123456789xyabi+-*/^_=<>(),.;:[]{}|$%&!' "]
    + [
        r"\frac",
        r"\frac{1}{2}",
        r"\sqrt",
        r"\pi",
        r"\text{",
        r"\left(",
        r"\right)",
        r"\{",
        r"\}",
        r"\cup",
    ]
    + [
        r"\infty",
        r"\pm",
        r"\le",
        r"\in",
        r"\\",
        r"\boxed{",
        r"\cdot",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
    ]
    + [
        r"\text{and}",
        " and ",
        " or ",
        "cm",
        r"^\circ",
        r"\%",
        r"\$",
        "e5",
        "1,000",
        r"\times",
        "_3",
        " km",
    ]
)
WRITTEN = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=40))
QUICK = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@QUICK
@given(WRITTEN, WRITTEN, st.sampled_from(["math", "gsm", "arithmetic", "mmlu"]))
def test_whatever_is_written_is_graded_the_same_both_ways(a, b, task):
    assert is_equivalent(a, b, task) == is_equivalent(b, a, task)
    answer = extract_answer(a, task)
    if answer is not None:
        assert is_equivalent(answer, answer, task)
        assert majority_vote([answer, None], task, 0) == answer


@QUICK
@given(st.lists(st.sampled_from(GOLDS), max_size=7), st.randoms(use_true_random=False))
def test_groups_and_votes_do_not_depend_on_the_order(answers, rng):
    shuffled = rng.sample(answers, len(answers))
    groups = [
        sorted(sorted(given[i] for i in group) for group in group_equivalent(given, "math"))
        for given in (answers, shuffled)
    ]
    assert groups[0] == groups[1]
    assert majority_vote(answers, "math", 3) == majority_vote(shuffled, "math", 3)
