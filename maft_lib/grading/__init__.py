r"""Reads the final answer out of a response and judges whether two answers are the same.

Grading decides the votes and so the training data, for every task by its answer type. "Between 5 and 7"
is no answer, and "12 or 13" none where one number is wanted; "3 times 4, or 12" is 12.
A sentence alone that says what two quantities are answers with both: none where one number is wanted.

- `number` (arithmetic, gsm): exact values only. 1,250 = 1250.00 and 1/2 = 0.5, but 75 is not 0.75 and
  0.333333 is not 1/3. In gsm a currency sign, a percent sign or a unit around the number is
  decoration; arithmetic has no units, so there it makes the answer no number.
- `choice` (mmlu): one letter, in any of the usual forms, or the text of an option.
- `text` (reasoning-gym): words without case and spacing, or equal numbers.
- `expression` (math): mathematical equality, with these conventions.
  - A percent sign is a unit, and units are dropped: 50\% = 50, never 0.5; 5 cm = 5. Two different
    known units differ (5 cm and 5 m, `\$5` and 5 cents).
  - A decimal of at least six places equals what it rounds (0.333333 = 1/3, 0.33 is not). A comma
    separates thousands (1,000) or answers (1, 22), it is never a decimal point.
  - Ends of intervals and order in tuples matter; order in sets and in bare lists does not. A bare
    list equals a tuple in the same order. `x \in [0,1]` and `0 \le x \le 1` are the interval.
  - `x = 5` is 5, but not `y = 5`; equations that say the same are equal. 2\frac{1}{2} is 5/2.
  - f(3) = 10, |AB| = 10 and a+b = 10 are 10 too, but f(3) = 10 is not f(4) = 10, and xy = 6 is not 6.
  - 1012_3 equals 1012, since the problem names the base, but not 1012_4; with both bases written the
    values count. A column is not a row, nor a tuple. 3:4 is 3/4.
  - Words are compared without case and spaces, single letters with case.

Normal forms (`latex`, `scalars`, `forms`) decide nearly all pairs. What is left is evaluated at random
points or goes to math-verify, in a process that is ended after two seconds of CPU (`process`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

from maft_lib.grading.equivalence import Assignment, Form, Words, same
from maft_lib.grading.extraction import candidates, choice
from maft_lib.grading.forms import read
from maft_lib.grading.latex import clean
from maft_lib.grading.process import ask, within_limit
from maft_lib.grading.scalars import Scalar, read_number
from maft_lib.reasoning import split_reasoning
from maft_lib.tasks import answer_type
from maft_lib.tasks.problem import Problem
from maft_lib.tasks.reasoning_gym import FULL_SCORE, check_safe

LONGEST_TEXT = 10_000  # characters of an answer in free text (grids, lists)


def extract_answer(
    text: str, task: str, options: Sequence[str] = (), *, cut: bool = False
) -> str | None:
    r"""The final answer of a response, or None if it has none that the task could accept.

    The last `\boxed{}` or `\fbox{}`; without one what follows "####" or "the answer is", or what the
    last sentence arrives at. A choice comes as its capital letter; `options` lets the text of an
    option choose too. What the model only thinks is no answer (see `reasoning`). Where the response
    was `cut` at the limit of tokens, only a closed box or a whole statement counts. Raises
    `ValueError` for an unknown task and for a response that is not text.
    """
    kind = answer_type(task)
    if not isinstance(text, str):
        raise ValueError(f"a response is text, but it is of type {type(text).__name__}.")
    for found in candidates(split_reasoning(text)[1], kind, cut):
        if kind == "choice":
            if letter := choice(found, options):
                return letter
        elif _read(found, task):
            return found.strip()
    return None


def is_equivalent(a: str | None, b: str | None, task: str) -> bool:
    """Whether two final answers are the same answer. Symmetric; None and the unreadable equal nothing.

    Bounded in CPU time (`process.LIMIT` seconds for what normal forms cannot decide) and memory.
    Raises `ValueError` for an unknown task and for answers that are not text.
    """
    kind = answer_type(task)
    left, right = (_read(_checked(answer), task) for answer in (a, b))
    if left is None or right is None:
        return False
    if kind == "expression":
        return _same(left, right)
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        return left.value == right.value
    return left == right


def is_correct(answer: str | None, problem: Problem) -> bool:
    """Whether an answer is right: the same as the ground truth, or right to the task's own scorer."""
    if problem.scoring is None or answer is None:
        return is_equivalent(answer, problem.answer, problem.task)
    check_safe(json.loads(problem.scoring)["name"])
    asked = ("reasoning_gym", problem.scoring, answer)
    return len(answer) <= LONGEST_TEXT and within_limit(lambda: ask(*asked) >= FULL_SCORE)


def group_equivalent(answers: Sequence[str | None], task: str) -> list[list[int]]:
    """The places of equivalent answers together, whatever their order; None is in no group.

    Answers are in one group if a chain of equivalent answers links them, so groups do not depend on
    which answer is looked at first.
    """
    groups: list[list[int]] = []
    for place, answer in enumerate(answers):
        if _read(_checked(answer), task) is None:
            continue
        linked = [g for g in groups if any(is_equivalent(answer, answers[i], task) for i in g)]
        groups = [g for g in groups if g not in linked]
        groups.append(sorted([place, *(i for group in linked for i in group)]))
    return sorted(groups)


@lru_cache(maxsize=100_000)
def _same(a: Form, b: Form) -> bool:
    return within_limit(lambda: same(a, b))


def _checked(answer: str | None) -> str:
    if not isinstance(answer, str | None):
        raise ValueError(f"an answer is text or None, but it is of type {type(answer).__name__}.")
    return answer or ""


@lru_cache(maxsize=100_000)
def _read(answer: str, task: str) -> Form | None:
    """The normal form of an answer to a task; None if the task could not accept it."""
    kind = answer_type(task)
    if kind == "expression":
        return read(answer)
    if kind == "number" and task != "arithmetic":  # with units
        form = read(answer)
        form = form.value if isinstance(form, Assignment) else form
        if not isinstance(form, Scalar) or form.unit == "base" or ":" in form.latex:
            return None
        return form if form.value is not None else None
    number = read_number(clean(answer) or "") if kind != "choice" else None
    if number or kind == "number" or len(answer) > LONGEST_TEXT:
        return number
    words = choice(answer) if kind == "choice" else re.sub(r"\s+", " ", answer).strip().casefold()
    return Words(words) if words else None
