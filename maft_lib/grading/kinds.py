"""What an answer can be: a scalar, words, digits in a base, a tuple, a set, a matrix, an equation.

Plain records that `forms` makes and `equivalence` compares. Know neither notation nor what is equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, Union

from maft_lib.grading.scalars import Scalar


@dataclass(frozen=True)
class Words:
    """An answer in words: a name, a letter of a choice, yes or no. Compared without case or spaces."""

    text: str


@dataclass(frozen=True)
class Based:
    """Digits with the base that they are written in, 1012_3."""

    digits: str
    base: int

    @property
    def value(self) -> int:
        """The number that the digits stand for."""
        return int(self.digits, self.base)


@dataclass(frozen=True)
class Sequence:
    """Items in order between brackets: a tuple, a point, an interval with open or closed ends."""

    opening: str
    items: tuple[Form, ...]
    closing: str
    latex: str


@dataclass(frozen=True)
class Collection:
    """Items in any order: a `set` in braces, a `list` without brackets, a `union` of intervals."""

    kind: str
    items: tuple[Form, ...]
    latex: str


@dataclass(frozen=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Form, ...], ...]
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


Form: TypeAlias = Union[  # noqa: UP007  the classes above name it before it exists
    Scalar, Words, Based, Sequence, Collection, Matrix, Assignment, Relation
]
