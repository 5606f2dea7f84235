"""Three small tasks in the shapes of GSM8K, MATH and MMLU, generated without end (DESIGN section 8).

Each `draw_*` returns a `Worked` problem: the question and its solution in several styles. They are
ordinary tasks: nothing here knows the miniature model that is pretrained on them.
"""

from __future__ import annotations

import random
from math import gcd

from maft_lib.tasks.worked import Step, Worked

NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pencils", "stamps")


def _number(values: dict[str, int]) -> str:
    return str(values["r"])


# --- mini_gsm: word problems of two or three steps, whole numbers ------------------------------


def draw_mini_gsm(rng: random.Random) -> Worked:
    """A word problem about people and things, answered by a whole number (GSM's shape)."""
    story = rng.choice((_boxes, _more_than, _times_as_many, _two_kinds, _savings, _pages))
    name, other = rng.sample(NAMES, 2)
    return story(rng, name, other, rng.choice(THINGS))


def _word_problem(question: str, values: dict[str, int], *styles: tuple[Step, ...]) -> Worked:
    return Worked(question, values, styles, (_number,) * len(styles))


def _boxes(rng: random.Random, name: str, other: str, things: str) -> Worked:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)
    c = min(c, a * b - 1)
    question = (
        f"{name} buys {a} boxes with {b} {things} each and gives {c} to {other}. "
        f"How many {things} are left?"
    )
    return _word_problem(
        question,
        {"a": a, "b": b, "c": c},
        (Step("s", "a", "*", "b", "{},"), Step("r", "s", "-", "c", "{}.")),
        (
            Step("s", "a", "*", "b", f"{name} buys {{}} {things}."),
            Step("r", "s", "-", "c", "After the gift {} are left."),
        ),
    )


def _more_than(rng: random.Random, name: str, other: str, things: str) -> Worked:
    values = {"a": rng.randint(2, 30), "b": rng.randint(2, 20)}
    question = (
        f"{name} has {values['a']} {things}. {other} has {values['b']} more than {name}. "
        f"How many {things} do they have together?"
    )
    return _word_problem(
        question,
        values,
        (Step("s", "a", "+", "b", "{},"), Step("r", "s", "+", "a", "{}.")),
        (
            Step("s", "a", "+", "b", f"{other} has {{}} {things}."),
            Step("r", "a", "+", "s", "Together they have {}."),
        ),
        (
            Step("s", "a", "+", "a", "Twice the smaller is {}."),
            Step("r", "s", "+", "b", "With the rest {}."),
        ),
    )


def _times_as_many(rng: random.Random, name: str, other: str, things: str) -> Worked:
    values = {"a": rng.randint(2, 12), "k": rng.randint(2, 9), "one": 1}
    question = (
        f"{name} has {values['a']} {things}. {other} has {values['k']} times as many. "
        f"How many more {things} does {other} have?"
    )
    return _word_problem(
        question,
        values,
        (Step("s", "k", "*", "a", "{},"), Step("r", "s", "-", "a", "{}.")),
        (
            Step("s", "k", "*", "a", f"{other} has {{}} {things}."),
            Step("r", "s", "-", "a", "The rest is {}."),
        ),
        (
            Step("s", "k", "-", "one", "{} times more,"),
            Step("r", "s", "*", "a", "{}."),
        ),
    )


def _two_kinds(rng: random.Random, name: str, other: str, things: str) -> Worked:
    values = {"a": rng.randint(2, 9), "b": rng.randint(2, 9), "c": rng.randint(2, 9)}
    question = ("{} sells {a} red and {b} blue {} a day. How many {} are that in {c} days?").format(
        name, things, things, **values
    )
    return _word_problem(
        question,
        values,
        (Step("s", "a", "+", "b", "{},"), Step("r", "s", "*", "c", "{}.")),
        (
            Step("s", "a", "+", "b", "A day gives {}."),
            Step("r", "c", "*", "s", f"All days give {{}} {things}."),
        ),
        (
            Step("s", "a", "*", "c", "Red are {},"),
            Step("t", "b", "*", "c", "blue are {},"),
            Step("r", "s", "+", "t", "together {}."),
        ),
    )


def _savings(rng: random.Random, name: str, other: str, things: str) -> Worked:
    a, b = rng.randint(4, 9), rng.randint(3, 9)
    c, d = rng.randint(2, 5), rng.randint(2, 4)
    d = min(d, (a * b - 1) // c)
    question = (
        f"{name} saves {a} dollars a week for {b} weeks and buys {d} {things} for {c} dollars "
        f"each. How many dollars are left?"
    )
    return _word_problem(
        question,
        {"a": a, "b": b, "c": c, "d": d},
        (
            Step("s", "a", "*", "b", "{},"),
            Step("t", "c", "*", "d", "{},"),
            Step("r", "s", "-", "t", "{}."),
        ),
        (
            Step("t", "c", "*", "d", f"The {things} are {{}} dollars."),
            Step("s", "a", "*", "b", f"{name} saves {{}}."),
            Step("r", "s", "-", "t", "So {} are left."),
        ),
    )


def _pages(rng: random.Random, name: str, other: str, things: str) -> Worked:
    values = {"a": rng.randint(2, 12), "b": rng.randint(2, 9), "c": rng.randint(2, 20)}
    question = (
        "{} counts {a} {} a day for {b} days and {} counts {c}. How many {} do they count?"
    ).format(name, things, other, things, **values)
    return _word_problem(
        question,
        values,
        (Step("s", "a", "*", "b", "{},"), Step("r", "s", "+", "c", "{}.")),
        (
            Step("s", "b", "*", "a", f"{name} counts {{}} {things}."),
            Step("r", "c", "+", "s", "Together they count {}."),
        ),
    )


# --- mini_math: LaTeX questions of levels 1-5, fractions and expressions as answers --------------


def draw_mini_math(rng: random.Random, levels: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Worked:
    """A LaTeX question of a level drawn from `levels` (MATH's shape)."""
    draws = {1: _share, 2: _linear_equation, 3: _simplify, 4: _add_fractions, 5: _expand}
    return draws[rng.choice(levels)](rng)


def _share(rng: random.Random) -> Worked:
    b, k = rng.randint(2, 9), rng.randint(2, 12)
    values = {"a": rng.randint(1, b - 1), "b": b, "n": b * k}
    divide_first = (Step("k", "n", "/", "b", "{},"), Step("r", "k", "*", "a", "{}."))
    in_words = (
        Step("k", "n", "/", "b", "One part is {}."),
        Step("r", "a", "*", "k", "All parts are {}."),
    )
    question = "Find $\\frac{%d}{%d}$ of $%d$." % (values["a"], b, b * k)
    return Worked(question, values, (divide_first, in_words), (_number,) * 2, level=1, subject="share")


def _linear_equation(rng: random.Random) -> Worked:
    a, x, c = rng.randint(2, 9), rng.randint(1, 12), rng.randint(1, 9)
    values = {"a": a, "c": c, "d": a * x + c}
    plain = (Step("m", "d", "-", "c", "{},"), Step("r", "m", "/", "a", "{}."))
    in_words = (
        Step("m", "d", "-", "c", "Subtract: {}."),
        Step("r", "m", "/", "a", "Divide: $x$ is {}."),
    )
    question = f"Solve ${a}x+{c}={a * x + c}$ for $x$."
    return Worked(question, values, (plain, in_words), (_number,) * 2, level=2, subject="algebra")


def _fraction(values: dict[str, int]) -> str:
    return "\\frac{%d}{%d}" % (values["p"], values["q"])


def _slashed(values: dict[str, int]) -> str:
    return "%d/%d" % (values["p"], values["q"])


def _coprime(rng: random.Random, largest: int) -> tuple[int, int]:
    while True:
        p, q = sorted(rng.sample(range(1, largest + 1), 2))
        if gcd(p, q) == 1:
            return p, q


def _simplify(rng: random.Random) -> Worked:
    (p, q), g = _coprime(rng, 12), rng.randint(2, 9)
    values = {"m": p * g, "n": q * g, "g": g}
    plain = (Step("p", "m", "/", "g", "{},"), Step("q", "n", "/", "g", "{}."))
    in_words = (
        Step("q", "n", "/", "g", f"Divide by {g}: {{}} below,"),
        Step("p", "m", "/", "g", "{} above."),
    )
    question = "Simplify $\\frac{%d}{%d}$." % (p * g, q * g)
    return Worked(
        question, values, (plain, in_words), (_fraction, _slashed), level=3, subject="fractions"
    )


def _add_fractions(rng: random.Random) -> Worked:
    while True:
        (a, b), (c, d) = _coprime(rng, 9), _coprime(rng, 9)
        if gcd(b, d) == 1:  # so that the sum is in lowest terms
            break
    values = {"a": a, "b": b, "c": c, "d": d}
    numerators_first = (
        Step("s", "a", "*", "d", "{},"),
        Step("t", "c", "*", "b", "{},"),
        Step("p", "s", "+", "t", "{},"),
        Step("q", "b", "*", "d", "{}."),
    )
    denominator_first = (
        Step("q", "b", "*", "d", "Below {}."),
        Step("s", "a", "*", "d", "Above {},"),
        Step("t", "c", "*", "b", "{},"),
        Step("p", "s", "+", "t", "{}."),
    )
    question = "Compute $\\frac{%d}{%d}+\\frac{%d}{%d}$." % (a, b, c, d)
    styles = (numerators_first, denominator_first)
    return Worked(question, values, styles, (_fraction, _slashed), level=4, subject="fractions")


def _quadratic(values: dict[str, int]) -> str:
    leading = "" if values["k"] == 1 else str(values["k"])
    return f"{leading}x^2+{values['s']}x+{values['p']}"


def _expand(rng: random.Random) -> Worked:
    values = {"k": rng.randint(1, 5), "a": rng.randint(1, 9), "b": rng.randint(1, 9)}
    middle_first = (
        Step("m", "k", "*", "b", "{},"),
        Step("s", "m", "+", "a", "{},"),
        Step("p", "a", "*", "b", "{}."),
    )
    constant_first = (
        Step("p", "a", "*", "b", "Without $x$: {}."),
        Step("m", "k", "*", "b", "With $x$: {},"),
        Step("s", "a", "+", "m", "{}."),
    )
    leading = "" if values["k"] == 1 else str(values["k"])
    question = f"Expand $({leading}x+{values['a']})(x+{values['b']})$."
    return Worked(
        question, values, (middle_first, constant_first), (_quadratic,) * 2, level=5, subject="algebra"
    )


# --- mini_mmlu: lettered options over several subjects ------------------------------------------

CYCLES = {  # subject: (what is asked, how the total comes about, the four options in their order)
    "number theory": ("What is the remainder of {a}+{b} divided by 4?", "+", "0 1 2 3"),
    "geography": (
        "{name} sails north and turns right {a} times, then {b} times more. Where does the ship go?",
        "+",
        "north east south west",
    ),
    "meteorology": (
        "It is spring. {a} quarters of a year pass and {b} more. Which season is it?",
        "+",
        "spring summer autumn winter",
    ),
    "physics": (
        "{name} turns a wheel {a} times by {b} colours, from red. Where does it stop?",
        "*",
        "red blue green white",
    ),
    "music": (
        "{name} counts {a} times {b} beats in bars of four, from the first. Where does it end?",
        "*",
        "first second third fourth",
    ),
}


def draw_mini_mmlu(rng: random.Random) -> Worked:
    """A question with options (A)-(D) from one of five subjects (MMLU's shape).

    Each goes round a cycle of four, so a slip in any step leads to another option.
    """
    subject = rng.choice(list(CYCLES))
    asked, op, options = CYCLES[subject]
    largest = (30, 30) if op == "+" else (12, 9)
    values = {"a": rng.randint(2, largest[0]), "b": rng.randint(2, largest[1]), "four": 4}
    lettered = " ".join(f"({name}) {option}" for name, option in zip("ABCD", options.split()))
    plain = (Step("t", "a", op, "b", "{},"), Step("r", "t", "%", "four", "{}."))
    in_words = (
        Step("t", "b", op, "a", "In all {}."),
        Step("r", "t", "%", "four", "The rest is {}."),
    )
    question = f"{asked.format(name=rng.choice(NAMES), **values)} {lettered}"
    return Worked(question, values, (plain, in_words), (_letter,) * 2, subject=subject)


def _letter(reached: dict[str, int]) -> str:
    return "ABCD"[min(max(reached["r"], 0), 3)]
