"""Tasks that are generated without end: arithmetic, and three in the shapes of GSM8K, MATH and MMLU.

Each `_draw_*` returns a `Worked` problem: the question and its solution in several styles. The shipped
miniature model is pretrained on these problems, so a change of a word or of the order of draws needs
another model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import gcd

from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.tasks.worked import Worked, styles

NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pencils", "stamps")


def draw_split(
    task: str,
    split: str,
    rng: random.Random,
    levels: Sequence[int] | None = None,
    max_operand: int = 30,
) -> tuple[Problem, Worked]:
    """Draws until a problem falls into `split` (`train`, `eval` or `corpus`).

    One problem in eight is for evaluation and one in eight for finetuning, decided by the hash of
    the question alone. So whatever the seed, no two splits share a problem, and the miniature model,
    which is pretrained on `corpus` only, has seen none of the others.
    """
    while True:
        if task == "arithmetic":
            worked = _draw_arithmetic(rng, max_operand)
        elif task == "mini_math":
            worked = _MATH_OF_LEVEL[rng.choice(levels or list(_MATH_OF_LEVEL))](rng)
        else:
            worked = _draw_mini_gsm(rng) if task == "mini_gsm" else _draw_mini_mmlu(rng)
        identifier = problem_id(worked.question)
        if {0: "eval", 1: "train"}.get(int(identifier[:8], 16) % 8, "corpus") == split:
            fields = worked.question, worked.answer, worked.level, worked.subject
            problem = Problem(identifier, task, *fields)
            return replace(problem, source="generated", styles=worked.patterns), worked


_ORDERS = styles(  # the same sum in three orders
    "p=b*c {}, q=e*f {}, s=a+p {}, t=s+d {}, r=t-q {}.",
    "p=b*c First {}, s=a+p {}, t=s+d {}. q=e*f Then {}, r=t-q {}.",
    "q=e*f Right to left: {}, u=d-q {}, p=b*c {}, s=a+p {}, r=s+u {}.",
)


def _draw_arithmetic(rng: random.Random, max_operand: int) -> Worked:
    """The paper's a+b*c+d-e*f (Section 3.1), operands uniform on 1..max_operand."""
    values = {name: rng.randint(1, max_operand) for name in "abcdef"}
    return Worked("What is the result of {a}+{b}*{c}+{d}-{e}*{f}?".format(**values), values, _ORDERS)


_STORIES: tuple[tuple[str, dict[str, tuple[int, int]], tuple[str, ...]], ...] = (
    # the question, the range of each number, the steps of each style
    ("{name} buys {a} boxes with {b} {things} each and gives {c} to {other}. "
     "How many {things} are left?",
     {"a": (2, 9), "b": (2, 9), "c": (1, 9)},
     ("s=a*b {}, r=s-c {}.",
      "s=a*b {name} buys {} {things}. r=s-c After the gift {} are left.")),
    ("{name} has {a} {things}. {other} has {b} more than {name}. "
     "How many {things} do they have together?",
     {"a": (2, 30), "b": (2, 20)},
     ("s=a+b {}, r=s+a {}.",
      "s=a+b {other} has {} {things}. r=a+s Together they have {}.",
      "s=a+a Twice the smaller is {}. r=s+b With the rest {}.")),
    ("{name} has {a} {things}. {other} has {k} times as many. "
     "How many more {things} does {other} have?",
     {"a": (2, 12), "k": (2, 9)},
     ("s=k*a {}, r=s-a {}.",
      "s=k*a {other} has {} {things}. r=s-a The rest is {}.",
      "s=k-one {} times more, r=s*a {}.")),
    ("{name} sells {a} red and {b} blue {things} a day. How many {things} are that in {c} days?",
     {"a": (2, 9), "b": (2, 9), "c": (2, 9)},
     ("s=a+b {}, r=s*c {}.",
      "s=a+b A day gives {}. r=c*s All days give {} {things}.",
      "s=a*c Red are {}, t=b*c blue are {}, r=s+t together {}.")),
    ("{name} saves {a} dollars a week for {b} weeks and buys {d} {things} for {c} dollars each. "
     "How many dollars are left?",
     {"a": (4, 9), "b": (3, 9), "c": (2, 5), "d": (2, 4)},
     ("s=a*b {}, t=c*d {}, r=s-t {}.",
      "t=c*d The {things} are {} dollars. s=a*b {name} saves {}. r=s-t So {} are left.")),
    ("{name} counts {a} {things} a day for {b} days and {other} counts {c}. "
     "How many {things} do they count?",
     {"a": (2, 12), "b": (2, 9), "c": (2, 20)},
     ("s=a*b {}, r=s+c {}.",
      "s=b*a {name} counts {} {things}. r=c+s Together they count {}.")),
)  # fmt: skip


def _draw_mini_gsm(rng: random.Random) -> Worked:
    """A word problem of two or three steps, answered by a whole number (the shape of GSM8K)."""
    question, ranges, chains = rng.choice(_STORIES)
    name, other = rng.sample(NAMES, 2)
    words = {"name": name, "other": other, "things": rng.choice(THINGS)}
    values = {number: rng.randint(*ends) for number, ends in ranges.items()} | {"one": 1}
    if "boxes" in question:  # what is given away or spent must leave something
        values["c"] = min(values["c"], values["a"] * values["b"] - 1)
    if "saves" in question:
        values["d"] = min(values["d"], (values["a"] * values["b"] - 1) // values["c"])
    told = styles(*(chain.replace("{}", "{{}}").format(**words) for chain in chains))
    return Worked(question.format(**words, **values), values, told)


def _share(rng: random.Random) -> Worked:
    b, k = rng.randint(2, 9), rng.randint(2, 12)
    values = {"a": rng.randint(1, b - 1), "b": b, "n": b * k}
    chains = styles("k=n/b {}, r=k*a {}.", "k=n/b One part is {}. r=a*k All parts are {}.")
    question = "Find $\\frac{%(a)d}{%(b)d}$ of $%(n)d$." % values
    return Worked(question, values, chains, level=1, subject="share")


def _linear_equation(rng: random.Random) -> Worked:
    a, x, c = rng.randint(2, 9), rng.randint(1, 12), rng.randint(1, 9)
    values = {"a": a, "c": c, "d": a * x + c}
    chains = styles("m=d-c {}, r=m/a {}.", "m=d-c Subtract: {}. r=m/a Divide: $x$ is {}.")
    question = "Solve ${a}x+{c}={d}$ for $x$.".format(**values)
    return Worked(question, values, chains, level=2, subject="algebra")


def _fraction(reached: dict[str, int], style: int) -> str:
    return ("\\frac{%(p)d}{%(q)d}", "%(p)d/%(q)d")[style] % reached


def _coprime(rng: random.Random, largest: int) -> tuple[int, int]:
    while True:
        p, q = sorted(rng.sample(range(1, largest + 1), 2))
        if gcd(p, q) == 1:
            return p, q


def _simplify(rng: random.Random) -> Worked:
    (p, q), g = _coprime(rng, 12), rng.randint(2, 9)
    values = {"m": p * g, "n": q * g, "g": g}
    chains = styles("p=m/g {}, q=n/g {}.", f"q=n/g Divide by {g}: {{}} below, p=m/g {{}} above.")
    question = "Simplify $\\frac{%(m)d}{%(n)d}$." % values
    return Worked(question, values, chains, _fraction, level=3, subject="fractions")


def _add_fractions(rng: random.Random) -> Worked:
    b = d = 2
    while gcd(b, d) > 1:  # the sum is to be in lowest terms
        (a, b), (c, d) = _coprime(rng, 9), _coprime(rng, 9)
    values = {"a": a, "b": b, "c": c, "d": d}
    chains = styles(
        "s=a*d {}, t=c*b {}, p=s+t {}, q=b*d {}.", "q=b*d Below {}. s=a*d Above {}, t=c*b {}, p=s+t {}."
    )
    question = "Compute $\\frac{%(a)d}{%(b)d}+\\frac{%(c)d}{%(d)d}$." % values
    return Worked(question, values, chains, _fraction, level=4, subject="fractions")


def _expand(rng: random.Random) -> Worked:
    values = {"k": rng.randint(1, 5), "a": rng.randint(1, 9), "b": rng.randint(1, 9)}
    leading = "" if values["k"] == 1 else str(values["k"])
    chains = styles(
        "m=k*b {}, s=m+a {}, p=a*b {}.", "p=a*b Without $x$: {}. m=k*b With $x$: {}, s=a+m {}."
    )
    question = f"Expand $({leading}x+{values['a']})(x+{values['b']})$."

    def quadratic(reached: dict[str, int], style: int) -> str:
        return f"{leading}x^2+{reached['s']}x+{reached['p']}"

    return Worked(question, values, chains, quadratic, level=5, subject="algebra")


_MATH_OF_LEVEL = {1: _share, 2: _linear_equation, 3: _simplify, 4: _add_fractions, 5: _expand}

CYCLES = {  # subject: (how the total comes about, the four options in their order, what is asked)
    "number theory": ("+", "0 1 2 3", "What is the remainder of {a}+{b} divided by 4?"),
    "geography": ("+", "north east south west", "{name} sails north and turns right {a} times, "
                  "then {b} times more. Where does the ship go?"),
    "meteorology": ("+", "spring summer autumn winter", "It is spring. {a} quarters of a year pass "
                    "and {b} more. Which season is it?"),
    "physics": ("*", "red blue green white", "{name} turns a wheel {a} times by {b} colours, "
                "from red. Where does it stop?"),
    "music": ("*", "first second third fourth", "{name} counts {a} times {b} beats in bars of four, "
              "from the first. Where does it end?"),
}  # fmt: skip


def _draw_mini_mmlu(rng: random.Random) -> Worked:
    """A question with options (A)-(D) from one of five subjects (the shape of MMLU).

    Each goes round a cycle of four, so a slip in any step leads to another option.
    """
    subject = rng.choice(list(CYCLES))
    op, options, asked = CYCLES[subject]
    largest = (30, 30) if op == "+" else (12, 9)
    values = {"a": rng.randint(2, largest[0]), "b": rng.randint(2, largest[1]), "four": 4}
    lettered = " ".join(f"({name}) {option}" for name, option in zip("ABCD", options.split()))
    chains = styles(
        f"t=a{op}b {{}}, r=t%four {{}}.", f"t=b{op}a In all {{}}. r=t%four The rest is {{}}."
    )

    def letter(reached: dict[str, int], style: int) -> str:
        return "ABCD"[reached["r"] % 4]

    question = f"{asked.format(name=rng.choice(NAMES), **values)} {lettered}"
    return Worked(question, values, chains, letter, subject=subject)
