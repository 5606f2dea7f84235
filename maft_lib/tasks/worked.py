r"""Worked solutions: written from steps, in several styles, with the final answer in a `\boxed{}`.

A generated problem carries its solution as steps rather than as text, so that it can be solved in
another order or in other words, and so that a step can slip: the rest builds on its wrong result.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add, floordiv, mod, mul, sub

OPERATIONS = {"+": add, "-": sub, "*": mul, "/": floordiv, "%": mod}
# Style k slips mostly in one step, `chain[-k]` (its first, its last, the one before its last), and
# there always by its own amount: wrong answers agree within a style and differ between styles.
OWN_SLIPS = (10, 1, 2)
WEAKNESS = 0.8  # share of that step in the log of a solution's accuracy; the others have equal ones


@dataclass(frozen=True)
class Step:
    """`name = left op right`; the operands are names of earlier values. `text` wraps the equation."""

    name: str
    left: str
    op: str
    right: str
    text: str

    @property
    def pattern(self) -> str:
        """A regular expression for the step as written by anybody, slips included."""
        before, after = map(re.escape, self.text.split("{}"))
        return rf"{before}-?\d+{re.escape(self.op)}-?\d+=-?\d+{after}"


_STEP = re.compile(r"(\w+)=(\w+)([-+*/%])(\w+) (.*?)(?= \w+=\w|$)")


def styles(*written: str) -> tuple[tuple[Step, ...], ...]:
    """Styles from the short form of their steps.

    `s=a*b In all {}.` names s = a * b and writes "In all 3*4=12."; the next step follows a space.
    """
    return tuple(tuple(Step(*step.groups()) for step in _STEP.finditer(style)) for style in written)


@dataclass(frozen=True)
class Worked:
    """A generated question together with every way in which it can be solved.

    `values` are the numbers in the question, `styles` the chains of steps that lead to the answer, and
    `final` writes the final answer of a style from the values reached (styles may write equivalent
    answers differently, 3/4 against \\frac{3}{4}).
    """

    question: str
    values: dict[str, int]
    styles: tuple[tuple[Step, ...], ...]
    final: Callable[[dict[str, int], int], str] = lambda reached, style: str(reached["r"])
    level: int | None = None
    subject: str | None = None

    @property
    def answer(self) -> str:
        """The right final answer, in the form of the first style."""
        return solve(self, style=0).answer

    @property
    def patterns(self) -> tuple[str, ...]:
        """A regular expression for each style: its words and operations in their order, any numbers."""
        return tuple(" ".join(step.pattern for step in style) + r"(?:\s|$)" for style in self.styles)


def style_of(response: str, patterns: Sequence[str]) -> int | None:
    """The style in which a response begins, by the patterns of its problem; None if it has none."""
    return next((i for i, p in enumerate(patterns) if re.match(p, response.strip())), None)


@dataclass(frozen=True)
class Solution:
    """A written solution: its text, last equation and final answer, and the values that make that."""

    text: str
    last_step: str
    answer: str
    style: int
    reached: dict[str, int]


def solve(
    worked: Worked,
    style: int,
    accuracy: float = 1.0,
    rng: random.Random | None = None,
    towards: Solution | None = None,
) -> Solution:
    """Writes the solution in one style; with probability `accuracy` no step of it slips.

    The steps after a slip go on from the wrong result. `towards` another solution, the steps on which
    no other builds get its results, so that they lead to its answer.
    """
    values, equations, chain = dict(worked.values), [], worked.styles[style]
    ends = {step.name for step in chain} - {name for step in chain for name in (step.left, step.right)}
    for step in chain:
        left, right = values[step.left], values[step.right]
        result = OPERATIONS[step.op](left, right)
        weak = step is chain[-style]
        share = WEAKNESS if weak else (1 - WEAKNESS) / (len(chain) - 1)
        if rng and rng.random() >= accuracy**share:
            result = result + OWN_SLIPS[style] if weak else _slip(result, rng)
        if towards and step.name in ends:
            result = towards.reached[step.name]
        values[step.name] = result
        equations.append((step.text, f"{left}{step.op}{right}={result}"))
    answer = worked.final(values, style)
    text = " ".join(template.replace("{}", equation) for template, equation in equations)
    text = f"{text} The answer is \\boxed{{{answer}}}."
    return Solution(text, equations[-1][1], answer, style, {name: values[name] for name in ends})


def _slip(value: int, rng: random.Random) -> int:
    """A plausible wrong result: off by one, two or ten, and not negative unless the right one is."""
    wrong = [value + offset for offset in (-10, -2, -1, 1, 2, 10)]
    return rng.choice([w for w in wrong if w >= 0 or value < 0])


LONGEST_ANSWER = 300  # characters that grading reads; the longest ground truth of MATH has 81
# A backslash with what follows it, so that \{, \} and \\ open and close nothing; or a lone brace.
_TOKEN = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox)(?![A-Za-z]))|\\(?:[A-Za-z]+|.)|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)
_OPENING = re.compile(r"\s*\{")
_BARE = re.compile(r"[ \t]*([^\s${}\\]*\d[^\s${}\\]*|[A-Za-z](?![A-Za-z]))")


def boxes(text: str) -> list[str]:
    r"""The contents of all complete `\boxed{...}` and `\fbox{...}`, in the order of their ends.

    Braces may nest, `\{` and `\}` count as text, and white space at the ends is dropped. `\boxed 5`
    without braces is a box too, if what follows up to white space, `$`, a brace or a backslash has a
    digit or is one letter. Of a box within a box the outer one counts. The time is linear in the text.
    """
    found: list[tuple[int, int]] = []
    opened: list[int | None] = []  # where the content of each open brace begins, if it is a box's
    end = 0
    while token := _TOKEN.search(text, end):
        end = token.end()
        if token["close"]:
            begin = opened.pop() if opened else None
            if begin is not None:
                while found and found[-1][0] > begin:  # boxes within this one
                    found.pop()
                found.append((begin, token.start()))
        elif token["open"]:
            opened.append(None)
        elif token["box"] and (brace := _OPENING.match(text, end)):
            end = brace.end()
            opened.append(end)
        elif token["box"] and (bare := _BARE.match(text, end)):
            found.append((bare.start(1), bare.start(1) + len(bare[1].rstrip(".,;:"))))
            end = bare.end()
    return [text[begin:end].strip() for begin, end in found]
