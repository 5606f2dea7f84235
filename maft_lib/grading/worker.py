"""The program behind `process`: compares LaTeX by math-verify, scores answers by reasoning_gym.

Each line of standard input is a question in JSON, each line of standard output a word of its answer.
LaTeX goes through a grammar into SymPy objects; no text is evaluated as Python, and math-verify's own
parsing, which does that for plain expressions, is not used.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

MEMORY = 2 * 1024**3  # bytes of address space
POINTS = 11  # at which expressions with letters are evaluated


def main() -> None:
    """Answers questions until standard input ends: `read` for each part when read, then a number."""
    library, sys.path[:] = sys.argv[1], json.loads(sys.argv[2])
    importlib.import_module(library)  # before the limits and the first question
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    with suppress(ImportError):  # no limits on Windows: the time limit has to do
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may be written
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        question = json.loads(line)
        for word in answer(library, *question) if question else ["ready"]:
            answers.write(word + "\n")
            answers.flush()


def answer(library: str, first: str, second: str) -> Iterator[str]:
    """The words of the answer to a question."""
    try:
        if library == "math_verify":
            left = _read(first)
            yield "read"
            right = _read(second)
            yield "read"
            yield str(int(_equal(left, right)))
        else:
            yield from ("read", "read")
            problem = json.loads(first)
            yield str(float(_dataset(problem["name"]).score_answer(second, problem["entry"])))
    except MemoryError:
        raise  # the process ends, and another takes its place
    except Exception:  # what cannot be read, compared or scored is not right
        yield "0"


@cache
def _dataset(name: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=0, size=1)


@lru_cache(maxsize=10_000)
def _read(latex: str) -> tuple[Any, list[Any] | None]:
    """The SymPy object that a piece of LaTeX writes, with i as the imaginary unit, and its values.

    It is evaluated here, so that what takes for ever does so while it is read and can be named.
    """
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from sympy import Basic, I, Symbol

    read = latex2sympy(
        latex,
        is_real=True,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False),
    )
    if isinstance(read, Basic):
        read = read.subs({symbol: I for symbol in read.atoms(Symbol) if symbol.name == "i"})
    return read, _values(read)


def _values(read: Any) -> list[Any] | None:
    """An expression to thirty digits at `POINTS` points, the same for the same letters; else None.

    Two expressions that agree at random points are equal, and no simplifier has to find out why.
    """
    from sympy import Expr, Float, MatrixBase, MatrixExpr, Rational

    if not isinstance(read, Expr) or read.has(MatrixExpr, MatrixBase):
        return None
    values, inexact = [], bool(read.atoms(Float))
    for point in range(POINTS if read.free_symbols else 1):
        at = {symbol: Rational(*_coordinate(symbol.name, point)) for symbol in read.free_symbols}
        values.append((read.subs(at).evalf(30), inexact))
        if not values[-1][0].is_number:
            return None
    return values * (POINTS // len(values))


def _coordinate(name: str, point: int) -> tuple[int, int]:
    """Numerator and denominator of a letter at a point: the same wherever the letter stands.

    All letters are positive at the first point, negative at the second, whole at the third; at the
    others the bits of its name decide the sign, so that any two letters differ in it somewhere.
    """
    drawn = random.Random(f"{name} {point}").randint(100, 900)
    if point == 2:
        return drawn, 1
    negative = point == 1 or (point > 2 and zlib.crc32(name.encode()) >> (point - 3) & 1)
    return -drawn if negative else drawn, 307


def _equal(left: tuple[Any, Any], right: tuple[Any, Any]) -> bool:
    from math_verify.grader import verify

    if left[1] is not None and right[1] is not None:
        return all(_close(*a, *b) for a, b in zip(left[1], right[1]))
    return any(
        verify(x, y, timeout_seconds=None, allow_set_relation_comp=True)
        for x, y in ((left[0], right[0]), (right[0], left[0]))
    )


def _close(a: Any, a_inexact: bool, b: Any, b_inexact: bool) -> bool:
    """Whether two values agree: to 25 digits, or to six decimals if either is written as a decimal."""
    from sympy import nan, zoo

    if a in (nan, zoo) or b in (nan, zoo):
        return False
    if a.is_finite is not True or b.is_finite is not True:
        return bool(a == b)
    gap, size = abs(a - b).evalf(30), max(abs(a).evalf(30), abs(b).evalf(30))
    if a_inexact or b_inexact:
        return bool(gap <= 5e-7 and gap <= 1e-3 * size)
    return bool(gap <= size * 10**-25)


if __name__ == "__main__":
    main()
