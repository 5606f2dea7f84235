"""Which answer a response gives, and which answers are the same."""

import pytest

from maft_lib.grading import extract_answer, is_equivalent


@pytest.mark.parametrize(
    "text, task, answer",
    [
        ("so \\boxed{12}.", "arithmetic", "12"),
        ("agent 1 said \\boxed{3}, I say \\boxed{-4}", "arithmetic", "-4"),
        ("\\boxed{\\frac{1}{2}}", "mini_math", "\\frac{1}{2}"),
        ("\\boxed{x^{2}+{3}} and \\boxed{unfinished", "mini_math", "x^{2}+{3}"),
        ("work\n#### 1,250", "mini_gsm", "1,250"),
        ("The answer is 7.", "mini_gsm", "7"),
        ("\\boxed{(B)}", "mini_mmlu", "(B)"),
        ("\\boxed{apples}", "mini_gsm", None),
        ("\\boxed{}", "mini_math", None),
        ("I do not know", "arithmetic", None),
        ("\\boxed{" + "9" * 5000 + "}", "arithmetic", None),
    ],
)
def test_the_final_answer_is_the_last_box(text, task, answer):
    assert extract_answer(text, task) == answer


@pytest.mark.parametrize(
    "a, b, task, same",
    [
        ("12", "12.0", "arithmetic", True),
        ("1,250", "1250", "mini_gsm", True),
        ("$12", "12", "mini_gsm", True),
        ("75", "0.75", "mini_gsm", False),
        ("3.14", "314", "mini_gsm", False),
        ("-5", "5", "arithmetic", False),
        ("1/2", "7/2", "mini_math", False),
        ("1/2", "\\frac{1}{2}", "mini_math", True),
        ("\\dfrac{2}{4}", "0.5", "mini_math", True),
        ("-\\frac{1}{2}", "-1/2", "mini_math", True),
        ("1/0", "1/0", "mini_math", True),
        ("x^2 + 5x + 6", "x^2+5x+6", "mini_math", True),
        ("x^2+5x+6", "x^2+6x+5", "mini_math", False),
        ("(b)", "B", "mini_mmlu", True),
        ("A", "B", "mini_mmlu", False),
        (None, None, "arithmetic", False),
        ("apples", "apples", "arithmetic", False),
    ],
)
def test_equivalence_is_symmetric(a, b, task, same):
    assert is_equivalent(a, b, task) is same
    assert is_equivalent(b, a, task) is same
