"""Worked solutions: short chains of arithmetic steps that can be written in several styles.

A generated problem carries its solution as steps rather than as text, so that the same problem can
be solved in another order or in other words, and so that a step can slip: a wrong result that the
rest of the chain then builds on, the way a person's does. Knows no prompt and no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}


@dataclass(frozen=True)
class Step:
    """`name = left op right`; the operands are names of earlier values. `text` wraps the equation."""

    name: str
    left: str
    op: str
    right: str
    text: str = "{}"


@dataclass(frozen=True)
class Worked:
    """A generated question together with every way in which it can be solved.

    `values` are the numbers in the question, `styles` the chains of steps that lead to the answer,
    `answers` one function per style that writes the final answer from the values reached (styles
    may write equivalent answers differently, 3/4 against \\frac{3}{4}).
    """

    question: str
    values: dict[str, int]
    styles: tuple[tuple[Step, ...], ...]
    answers: tuple[Callable[[dict[str, int]], str], ...]
    level: int | None = None
    subject: str | None = None

    @property
    def answer(self) -> str:
        """The right final answer, in the form of the first style."""
        return solve(self, style=0).answer

    @property
    def patterns(self) -> tuple[str, ...]:
        """A regular expression for each style: its words and operations in their order, any numbers."""
        return tuple(" ".join(map(_pattern, style)) + r"(?:\s|$)" for style in self.styles)


def _pattern(step: Step) -> str:
    """One step as written by anybody, slips included."""
    before, after = step.text.split("{}")
    equation = rf"-?\d+{re.escape(step.op)}-?\d+=-?\d+"
    return f"{re.escape(before)}{equation}{re.escape(after)}"


def style_of(response: str, patterns: Sequence[str]) -> int | None:
    """The style in which a response begins, by the patterns of its problem; None if it has none."""
    return next((i for i, p in enumerate(patterns) if re.match(p, response.strip())), None)


@dataclass(frozen=True)
class Solution:
    """A written solution: the whole text, its last equation and its final answer."""

    text: str
    last_step: str
    answer: str
    style: int


def slip(value: int, rng: random.Random) -> int:
    """A plausible wrong result: off by one, two or ten, and not negative unless the right one is."""
    wrong = [value + offset for offset in (-10, -2, -1, 1, 2, 10)]
    return rng.choice([w for w in wrong if w >= 0 or value < 0])


def solve(
    worked: Worked, style: int, accuracy: float = 1.0, rng: random.Random | None = None
) -> Solution:
    """Writes the solution in one style; with probability `accuracy` no step of it slips.

    Every step slips with the same probability 1 - accuracy**(1 / number of steps), and the steps
    after it go on from the wrong result.
    """
    values, equations, steps = dict(worked.values), [], worked.styles[style]
    slip_rate = 1 - accuracy ** (1 / len(steps))
    for step in steps:
        left, right = values[step.left], values[step.right]
        result = OPERATIONS[step.op](left, right)
        if slip_rate and rng and rng.random() < slip_rate:
            result = slip(result, rng)
        values[step.name] = result
        equations.append((step.text, f"{left}{step.op}{right}={result}"))
    answer = worked.answers[style](values)
    text = " ".join(template.replace("{}", equation) for template, equation in equations)
    return Solution(f"{text} The answer is \\boxed{{{answer}}}.", equations[-1][1], answer, style)
