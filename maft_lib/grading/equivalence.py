"""Decides whether two forms are the same answer.

Normal forms come first: exact numbers, words, and the members of tuples, sets and matrices one by one.
What is left are expressions, equations and inequalities, which math-verify compares (see `process`).
`same` is symmetric by construction: a pair is always compared in the same order.
"""

from __future__ import annotations

from functools import lru_cache

from maft_lib.grading.kinds import (
    Assignment,
    Based,
    Collection,
    Form,
    Matrix,
    Relation,
    Sequence,
    Words,
)
from maft_lib.grading.process import ask
from maft_lib.grading.scalars import Scalar

_COMPOUND = ("matrix", r"\setminus", r"\cap")  # in what is read as a scalar but is worth more
DECIMALS = 6  # a decimal with so many digits may stand for a number that it rounds


def symbolically_equal(a: str, b: str) -> bool:
    """Whether two pieces of LaTeX are mathematically equal, as far as that can be said in time."""
    return ask("math_verify", *sorted((a, b))) == 1


def same(a: Form, b: Form) -> bool:
    """Whether two forms are the same answer."""
    if a == b:
        return True
    return _same(a, b) if repr(a) <= repr(b) else _same(b, a)


@lru_cache(maxsize=100_000)
def _same(a: Form, b: Form) -> bool:
    if isinstance(a, Assignment) or isinstance(b, Assignment):
        return _same_assignment(a, b)
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return _same_scalar(a, b)
    if isinstance(a, Based) or isinstance(b, Based):
        return _same_based(a, b)
    if isinstance(a, Words) or isinstance(b, Words):
        return _letters(a) is not None and _letters(a) == _letters(b)
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        return [len(row) for row in a.rows] == [len(row) for row in b.rows] and all(
            same(x, y) for left, right in zip(a.rows, b.rows) for x, y in zip(left, right)
        )
    if isinstance(a, (Sequence, Collection)) and isinstance(b, (Sequence, Collection)):
        return _same_members(a, b)
    if isinstance(a, Collection) or isinstance(b, Collection):
        return _same_single(a, b)
    return _symbolic(a, b)


def _same_scalar(a: Scalar, b: Scalar) -> bool:
    if a.unit and b.unit and a.unit != b.unit:
        return False
    if a.value is None or b.value is None:
        return a.latex == b.latex or symbolically_equal(a.latex, b.latex)
    if a.value == b.value:
        return True
    return _rounds(a, b) or _rounds(b, a)


def _rounds(decimal: Scalar, exact: Scalar) -> bool:
    """Whether a decimal of six digits or more rounds a fraction that no decimal can write."""
    if decimal.value is None or exact.value is None or exact.decimals is not None:
        return False
    endless = exact.value.denominator
    for prime in (2, 5):
        while endless % prime == 0:
            endless //= prime
    places = decimal.decimals or 0
    gap = abs(decimal.value - exact.value)
    return endless > 1 and places >= DECIMALS and 2 * gap * 10**DECIMALS <= 1


def _same_based(a: Form, b: Form) -> bool:
    if isinstance(a, Based) and isinstance(b, Based):
        return a.value == b.value
    based, other = (a, b) if isinstance(a, Based) else (b, a)
    # A problem that wants a base names it, so leaving it out is no mistake.
    return isinstance(based, Based) and isinstance(other, Scalar) and other.latex == based.digits


def _letters(form: Form) -> str | None:
    """The letters of words, or of a product of variables that may be a word."""
    if isinstance(form, Words):
        return form.text
    if isinstance(form, Scalar) and form.value is None and form.latex.isalpha():
        return form.latex.casefold() if len(form.latex) > 1 else form.latex
    return None


def _same_assignment(a: Form, b: Form) -> bool:
    if isinstance(a, Assignment) and isinstance(b, Assignment):
        if a.name == b.name and same(a.value, b.value):
            return True
        return a.name != b.name and _free(a) and _free(b) and _symbolic(a, b)
    given, other = (a, b) if isinstance(a, Assignment) else (b, a)
    assert isinstance(given, Assignment)
    if isinstance(other, Relation):
        return _symbolic(given, other)
    return same(given.value, other)


def _free(a: Assignment) -> bool:
    """Whether the value of an assignment has letters of its own (y = 2x + 1, but not y = 5)."""
    return isinstance(a.value, Scalar) and a.value.value is None


def _same_members(a: Sequence | Collection, b: Sequence | Collection) -> bool:
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        return (a.opening, a.closing) == (b.opening, b.closing) and _in_order(a.items, b.items)
    kinds = {form.kind if isinstance(form, Collection) else "sequence" for form in (a, b)}
    if kinds == {"sequence", "list"}:
        sequence = a if isinstance(a, Sequence) else b
        round_brackets = isinstance(sequence, Sequence) and sequence.opening == "("
        return round_brackets and _in_order(a.items, b.items)
    if "union" in kinds:
        return (kinds == {"union"} and _in_any_order(a.items, b.items)) or _symbolic(a, b)
    if kinds == {"list"}:
        return _one_to_one(a.items, b.items)
    return "sequence" not in kinds and _in_any_order(a.items, b.items)


def _same_single(a: Form, b: Form) -> bool:
    """One value against several: {5} and 5 are the same."""
    several, single = (a, b) if isinstance(a, Collection) else (b, a)
    if not isinstance(several, Collection) or several.kind == "union":
        return _symbolic(a, b)
    return len(several.items) == 1 and same(several.items[0], single)


def _in_order(left: tuple[Form, ...], right: tuple[Form, ...]) -> bool:
    return len(left) == len(right) and all(same(x, y) for x, y in zip(left, right))


def _in_any_order(left: tuple[Form, ...], right: tuple[Form, ...]) -> bool:
    """Whether each member of either side has an equal on the other; members count once."""
    return all(any(same(x, y) for y in right) for x in left) and all(
        any(same(x, y) for x in left) for y in right
    )


def _one_to_one(left: tuple[Form, ...], right: tuple[Form, ...]) -> bool:
    """Whether the members can be paired, each with an equal one: 2, 2, 3 is not 2, 3, 3."""
    waiting = list(right)
    for x in left:
        found = next((i for i, y in enumerate(waiting) if same(x, y)), None)
        if found is None:
            return False
        del waiting[found]
    return not waiting


def _symbolic(a: Form, b: Form) -> bool:
    """Compared as LaTeX; a value and an equation, an interval or a matrix are never the same."""
    left, right = getattr(a, "latex", ""), getattr(b, "latex", "")
    for form in (a, b):
        if isinstance(form, Scalar) and not any(part in form.latex for part in _COMPOUND):
            return False
    return bool(left and right) and symbolically_equal(left, right)
