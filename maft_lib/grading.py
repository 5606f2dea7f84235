r"""Reads the final answer out of a response and judges whether two answers are the same.

The final answer is the last `\boxed{}` of a response, since a critic may quote other agents' boxes
before its own; where there is none, what follows the last "####" or "the answer is". Answers are
brought to a normal form, in which equivalent ones are equal (1/2, 0.5 and \dfrac{1}{2}), so
equivalence is symmetric and transitive. A model's text is only ever compared, never executed.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from maft_lib.tasks import answer_type

LONGEST = 300  # characters of a final answer; a longer one is no answer

_NUMBER = re.compile(r"-?(\d+(\.\d+)?|\.\d+)")
_RATIO = re.compile(r"(-?)(?:\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}|(-?\d+)/(\d+))")
_SPOKEN = re.compile(r"(?:####|answer is:?)\s*([^\n]+)", re.IGNORECASE)


def extract_answer(text: str, task: str) -> str | None:
    """The final answer of a response, or None if it has none that the task could accept."""
    found = _last_box(text)
    if found is None:
        spoken = _SPOKEN.findall(text)
        found = spoken[-1].strip().rstrip(".") if spoken else None
    if not found or len(found) > LONGEST or normal_form(found, task) is None:
        return None
    return found.strip()


def is_equivalent(a: str | None, b: str | None, task: str) -> bool:
    """Whether two final answers are the same answer. Symmetric; None equals nothing."""
    if a is None or b is None:
        return False
    left = normal_form(a, task)
    return left is not None and left == normal_form(b, task)


@lru_cache(maxsize=100_000)
def normal_form(answer: str, task: str) -> str | None:
    """The form in which equivalent answers of a task are equal; None if it is no answer at all.

    `number`: one plain number, thousands separators and a leading $ allowed. `choice`: one letter,
    with or without parentheses. `expression`: a number or fraction by value, anything else by its
    LaTeX without spacing.
    """
    if len(answer) > LONGEST:
        return None
    kind = answer_type(task)
    text = answer.strip().strip("$").strip()
    if kind == "choice":
        letter = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text)
        return letter[1].upper() if letter else None
    value = _value(text, fractions=kind == "expression")
    if value is not None or kind == "number":
        return str(value) if value is not None else None
    return _plain_latex(text) or None


def _value(text: str, fractions: bool) -> Fraction | None:
    """The number that a text writes, or None."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", text.removesuffix("."))
    if _NUMBER.fullmatch(plain):
        return Fraction(plain)
    ratio = _RATIO.fullmatch(plain.replace(" ", "")) if fractions else None
    if not ratio:
        return None
    above, below = int(ratio[2] or ratio[4]), int(ratio[3] or ratio[5])
    return (-1 if ratio[1] else 1) * Fraction(above, below) if below else None


def _plain_latex(text: str) -> str:
    text = re.sub(r"\\(left|right|,|;|!|quad| )", "", text).replace("\\dfrac", "\\frac")
    return re.sub(r"\s+", "", text)


def _last_box(text: str) -> str | None:
    r"""What stands in the last complete \boxed{...}, nested braces included."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth, inside = 1, start + len("\\boxed{")
        for i in range(inside, min(len(text), inside + LONGEST)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[inside:i]
        start = text.rfind("\\boxed{", 0, start)
    return None
