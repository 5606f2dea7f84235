"""Arithmetic (Section 3.1): a + b * c + d - e * f with operands up to a maximum (30 in the paper)."""

from __future__ import annotations

import random

from maft_lib.tasks.worked import Step, Worked

_STYLES = (  # the same sum in three orders
    (
        Step("p", "b", "*", "c", "{},"),
        Step("q", "e", "*", "f", "{},"),
        Step("s", "a", "+", "p", "{},"),
        Step("t", "s", "+", "d", "{},"),
        Step("r", "t", "-", "q", "{}."),
    ),
    (
        Step("p", "b", "*", "c", "First {},"),
        Step("s", "a", "+", "p", "{},"),
        Step("t", "s", "+", "d", "{}."),
        Step("q", "e", "*", "f", "Then {},"),
        Step("r", "t", "-", "q", "{}."),
    ),
    (
        Step("q", "e", "*", "f", "Right to left: {},"),
        Step("u", "d", "-", "q", "{},"),
        Step("p", "b", "*", "c", "{},"),
        Step("s", "a", "+", "p", "{},"),
        Step("r", "s", "+", "u", "{}."),
    ),
)


def draw(rng: random.Random, max_operand: int = 30) -> Worked:
    """One random problem; each operand is uniform on 1..max_operand (Du et al., 2023)."""
    values = {name: rng.randint(1, max_operand) for name in "abcdef"}
    question = "What is the result of {a}+{b}*{c}+{d}-{e}*{f}?".format(**values)
    return Worked(question, values, _STYLES, (lambda v: str(v["r"]),) * 3)
