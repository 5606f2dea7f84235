"""What an answer can be, and when two answers are the same.

Normal forms come first: exact numbers, words, and the members of tuples, sets and matrices one by one.
What is left are expressions, equations and inequalities, which math-verify compares (see `process`).
`same` is symmetric by construction: a pair is always compared in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from maft_lib.grading.process import ask
from maft_lib.grading.scalars import Scalar

_COMPOUND = ("matrix", r"\setminus", r"\cap")  # in what is read as a scalar but is worth more
DECIMALS = 6  # a decimal with so many digits may stand for a number that it rounds


@dataclass(frozen=True)
class Words:
    """An answer in words: a name, a letter of a choice, yes or no. Compared without case or spaces."""

    text: str


@dataclass(frozen=True)
class Several:
    """More than one value, or one where there could be more.

    A `set` in braces, a `list` without brackets, a `union` of intervals, a `matrix` and each `row` of
    it; a tuple, point or interval has its brackets for its kind, such as `[)`.
    """

    kind: str
    items: tuple[Form, ...]
    latex: str


@dataclass(frozen=True)
class Assignment:
    """A name and what it equals (x = 5), or lies in (x in [0, 1], 0 <= x <= 1)."""

    name: str
    value: Form
    latex: str


@dataclass(frozen=True)
class Relation:
    """An equation or inequality that gives no name a value."""

    latex: str


Form: TypeAlias = Scalar | Words | Several | Assignment | Relation


def same(a: Form, b: Form) -> bool:
    """Whether two forms are the same answer."""
    return a == b or (_same(a, b) if repr(a) <= repr(b) else _same(b, a))


def _same(a: Form, b: Form) -> bool:
    if isinstance(a, Assignment) or isinstance(b, Assignment):
        return _same_assignment(a, b)
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return _same_scalar(a, b)
    if isinstance(a, Words) or isinstance(b, Words):
        return _letters(a) is not None and _letters(a) == _letters(b)
    for group, other in ((a, b), (b, a)):
        single = not isinstance(other, Several) or other.kind == "matrix"
        if isinstance(group, Several) and group.kind in ("set", "list") and single:
            return len(group.items) == 1 and same(group.items[0], other)  # {5} and 5 are the same
    if isinstance(a, Several) and isinstance(b, Several):
        return _same_members(a, b)
    return _symbolic(a, b)


def _same_scalar(a: Scalar, b: Scalar) -> bool:
    if a.unit != b.unit and "base" in (a.unit, b.unit):
        return (
            a.latex == b.latex
        )  # a problem that wants a base names it, so leaving it out is no mistake
    if a.unit and b.unit and a.unit != b.unit:
        return False
    if a.value is None or b.value is None:
        return a.latex == b.latex or symbolically_equal(a.latex, b.latex)
    return a.value == b.value or _rounds(a, b) or _rounds(b, a)


def _rounds(decimal: Scalar, exact: Scalar) -> bool:
    """Whether a decimal of six digits or more rounds a fraction that no decimal can write."""
    if decimal.value is None or exact.value is None or exact.decimals is not None:
        return False
    parts = exact.value.denominator
    endless = pow(10, parts.bit_length(), parts) > 0  # no power of ten is a multiple of it
    gap = abs(decimal.value - exact.value)
    return endless and (decimal.decimals or 0) >= DECIMALS and 2 * gap * 10**DECIMALS <= 1


def _letters(form: Form) -> str | None:
    """The letters of words, or of a product of variables that may be a word."""
    if isinstance(form, Words):
        return form.text
    if isinstance(form, Scalar) and form.value is None and form.latex.isalpha():
        return form.latex.casefold() if len(form.latex) > 1 else form.latex
    return None


def _same_assignment(a: Form, b: Form) -> bool:
    if isinstance(a, Assignment) and isinstance(b, Assignment):
        if a.name == b.name:
            return same(a.value, b.value)
        # Both values must have letters of their own: y = 2x + 1, but not y = 5.
        values = (a.value, b.value)
        return all(isinstance(v, Scalar) and v.value is None for v in values) and _symbolic(a, b)
    given, other = (a, b) if isinstance(a, Assignment) else (b, a)
    assert isinstance(given, Assignment)
    return _symbolic(given, other) if isinstance(other, Relation) else same(given.value, other)


def _same_members(a: Several, b: Several) -> bool:
    kinds = {a.kind, b.kind}
    if "union" in kinds or ("matrix" in kinds and len(kinds) == 2):
        return (kinds == {"union"} and _in_any_order(a, b)) or _symbolic(a, b)
    if "set" in kinds and kinds <= {"set", "list"}:
        return _in_any_order(a, b)
    if len(a.items) != len(b.items):
        return False
    if kinds == {"list"}:
        return _paired(a, b)
    ordered = len(kinds) == 1 or ("list" in kinds and "(" in "".join(kinds))
    return ordered and all(map(same, a.items, b.items))


def _in_any_order(a: Several, b: Several) -> bool:
    """Whether each member of either has an equal in the other: {1, 1, 2} is {1, 2}."""
    sides = ((a.items, b.items), (b.items, a.items))
    return all(any(same(x, y) for y in others) for items, others in sides for x in items)


def _paired(a: Several, b: Several) -> bool:
    """Whether the members can be paired, each with an equal one: 2, 2, 3 is not 2, 3, 3."""
    waiting = list(b.items)
    for x in a.items:
        equal = next((y for y in waiting if same(x, y)), None)
        if equal is None:
            return False
        waiting.remove(equal)
    return not waiting


def _symbolic(a: Form, b: Form) -> bool:
    """Compared as LaTeX; a value and an equation, an interval or a matrix are never the same."""
    for form in (a, b):
        if isinstance(form, Scalar) and not any(part in form.latex for part in _COMPOUND):
            return False
    left, right = getattr(a, "latex", ""), getattr(b, "latex", "")
    return bool(left and right) and symbolically_equal(left, right)


def symbolically_equal(a: str, b: str) -> bool:
    """Whether two pieces of LaTeX are mathematically equal, as far as that can be said in time."""
    first, second = sorted((a, b))
    pairs = ((first, first), (second, second), (first, second))  # what cannot be read costs once
    return all(ask("math_verify", *pair) == 1 for pair in pairs)
