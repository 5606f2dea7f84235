"""The program behind `process`: compares LaTeX by math-verify, scores answers by reasoning_gym.

Each line of standard input is a question in JSON, each line of standard output its answer.
LaTeX goes through a grammar into SymPy objects; no text is evaluated as Python, and math-verify's own
parsing, which does that for plain expressions, is not used.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
import resource
import signal
import sys
import time
import zlib
from functools import cache, lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify.grader import verify

MEMORY = 2 * 1024**3  # bytes of address space
POINTS = 11  # at which expressions with letters are evaluated
DIGITS = 100  # of a value that is no fraction


def main() -> None:
    """Says `ready`, and answers questions until standard input ends.

    A copy of this process does so. When a question ends it, the next copy has all libraries at hand.
    """
    library = importlib.import_module(sys.argv[1]).__name__  # before the limits and the first question
    answer("math_verify", "x", "x+1", 60)  # builds what it does at the first question
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may be written
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    while child := os.fork():
        if os.waitpid(child, 0)[1] in (0, signal.SIGKILL):  # at the end of input, or from outside
            return
        os.write(answers, b"killed\n")
    for line in sys.stdin:
        question = json.loads(line)
        os.write(answers, f"{answer(library, *question) if question else 'ready'}\n".encode())


def answer(library: str, first: str, second: str, limit: float) -> str:
    """The score of two texts, and the seconds of CPU it took.

    The kernel ends the process when the answer takes over `limit` of them.
    """
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        score = float(_equal(first, second) if library == "math_verify" else _scored(first, second))
    except MemoryError:
        raise  # the process ends, and another takes its place
    except Exception:  # what cannot be read, compared or scored is not right
        score = 0.0
    signal.setitimer(signal.ITIMER_PROF, 0)
    return f"{score} {time.process_time() - start}"


def _scored(scoring: str, text: str) -> float:
    problem = json.loads(scoring)
    return _dataset(problem["name"]).score_answer(text, problem["entry"])


@cache
def _dataset(name: str) -> Any:
    return importlib.import_module("reasoning_gym").create_dataset(name, seed=0, size=1)


def _equal(first: str, second: str) -> bool:
    """Whether two pieces of LaTeX are equal; of one piece twice, whether it can be read."""
    (left, known, at_left), (right, others, at_right) = _read(first), _read(second)
    if first == second:
        return True
    if known != others:
        at_left, at_right = _values(left, known | others), _values(right, known | others)
    if at_left is not None and at_right is not None:
        inexact = bool(left.atoms(sympy.Float) or right.atoms(sympy.Float))
        return all(_close(a, b, inexact) for a, b in zip(at_left, at_right))
    return any(
        verify(x, y, timeout_seconds=None, allow_set_relation_comp=True)
        for x, y in ((left, right), (right, left))
    )


@lru_cache(maxsize=10_000)
def _read(latex: str) -> tuple[Any, set[str], list[Any] | None]:
    """The SymPy object that a piece of LaTeX writes, with i as the imaginary unit.

    With it the letters in the bounds of sums and products, which stand for natural numbers, and its
    values: they are evaluated here, so that what takes for ever does so while it is read.
    """
    read = latex2sympy(
        latex,
        is_real=True,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False),
    )
    counted = set()
    if isinstance(read, sympy.Basic):
        read = read.subs({symbol: sympy.I for symbol in read.free_symbols if str(symbol) == "i"})
        bounds = [bound for each in read.atoms(sympy.Sum, sympy.Product) for bound in each.limits]
        counted = {str(s) for bound in bounds for end in bound[1:] for s in end.free_symbols}
    return read, counted, _values(read, counted)


def _values(read: Any, counted: set[str]) -> list[Any] | None:
    """An expression's values at `POINTS` points, the same for the same letters; else None.

    Two expressions that agree at random points are equal, and no simplifier has to find out why.
    """
    if not isinstance(read, sympy.Expr) or read.has(sympy.MatrixExpr, sympy.MatrixBase):
        return None
    values = []
    for point in range(POINTS if read.free_symbols else 1):
        at = {letter: _coordinate(letter.name, point, counted) for letter in read.free_symbols}
        values.append(_value(read.subs(at), bool(counted)))
        if not values[-1].is_number:
            return None
    return values * (POINTS // len(values))


def _value(constant: Any, counted: bool) -> Any:
    """A fraction as it is, anything else to `DIGITS` digits; what has no digit but noise is zero."""
    constant = constant.doit() if counted or constant.is_rational else constant
    if constant.is_Rational:
        return constant
    value = constant.evalf(DIGITS, maxn=3 * DIGITS)
    return sympy.Integer(0) if value.is_Float and value._prec == 1 else value


def _coordinate(name: str, point: int, counted: set[str]) -> Any:
    """The value of a letter at a point, a fraction: the same wherever the letter stands.

    All letters are positive at the first point, negative at the second, whole at the third; at the
    others the bits of its name decide the sign, so that any two letters differ in it somewhere.
    """
    rng = random.Random(f"{name} {point}")
    if name in counted:
        return sympy.Integer(rng.randint(1, 20))
    size = sympy.Rational(rng.randint(100, 900), 1 if point == 2 else 307)
    negative = point == 1 or (point > 2 and zlib.crc32(name.encode()) >> (point - 3) & 1)
    return -size if negative else size


def _close(a: Any, b: Any, inexact: bool) -> bool:
    """Whether two values agree: fractions exactly, to six decimals if either side has a decimal."""
    if a in (sympy.nan, sympy.zoo) or b in (sympy.nan, sympy.zoo):
        return False
    if a.is_finite is not True or b.is_finite is not True or (a.is_Rational and b.is_Rational):
        return bool(a == b)
    gap, size = abs(a - b).evalf(DIGITS), max(abs(a).evalf(DIGITS), abs(b).evalf(DIGITS))
    if inexact:
        return bool(gap <= 5e-7 and gap <= 1e-3 * size)
    return bool(gap <= size * 10 ** (20 - DIGITS))


if __name__ == "__main__":
    main()
