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


def draw_mini_mmlu(rng: random.Random) -> Worked:
    """A question with options (A)-(D) from one of five subjects (MMLU's shape)."""
    subject = rng.choice((_sequence, _geometry, _time, _remainder, _mean))
    stem, values, styles = subject(rng)
    right = Worked(stem, values, styles, (_number,) * len(styles)).answer
    return _with_options(rng, stem, values, styles, int(right), subject.__name__.strip("_"))


def _with_options(
    rng: random.Random,
    stem: str,
    values: dict[str, int],
    styles: tuple[tuple[Step, ...], ...],
    right: int,
    subject: str,
) -> Worked:
    near = [right + offset for offset in (-10, -2, -1, 1, 2, 10) if right + offset >= 0]
    options = [right, *rng.sample(near, 3)]
    rng.shuffle(options)

    def letter(reached: dict[str, int]) -> str:
        """The letter of the option nearest to the value reached: a slip mostly chooses a wrong one."""
        nearest = min(options, key=lambda option: abs(option - reached["r"]))
        return "ABCD"[options.index(nearest)]

    lettered = [f"({name}) {option}" for name, option in zip("ABCD", options)]

    def tried(reached: dict[str, int]) -> str:
        """Goes through the options up to the one that fits."""
        value = reached["r"]
        last = options.index(value) if value in options else len(options)
        words = [f"{text} no," for text in lettered[:last]]
        return " " + " ".join([*words, f"{lettered[last]} yes." if last < len(options) else "none."])

    question = f"{stem} {' '.join(lettered)}"
    return Worked(question, values, styles, (letter,) * len(styles), tried, subject=subject)


Stem = tuple[str, dict[str, int], tuple[tuple[Step, ...], ...]]


def _sequence(rng: random.Random) -> Stem:
    a, k = rng.randint(1, 20), rng.randint(2, 9)
    terms = [a + i * k for i in range(4)]
    plain = (Step("k", "y", "-", "x", "{},"), Step("r", "z", "+", "k", "{}."))
    in_words = (
        Step("k", "y", "-", "x", "The terms grow by {}."),
        Step("r", "z", "+", "k", "The next is {}."),
    )
    stem = "What comes next: {}, {}, {}, {}?".format(*terms)
    return stem, {"x": terms[0], "y": terms[1], "z": terms[3]}, (plain, in_words)


def _geometry(rng: random.Random) -> Stem:
    values = {"a": rng.randint(2, 20), "b": rng.randint(2, 20), "two": 2}
    plain = (Step("s", "a", "+", "b", "{},"), Step("r", "s", "*", "two", "{}."))
    in_words = (
        Step("s", "a", "*", "two", "Two sides are {},"),
        Step("t", "b", "*", "two", "two more {},"),
        Step("r", "s", "+", "t", "together {}."),
    )
    stem = "What is the perimeter of a rectangle with sides {a} and {b}?".format(**values)
    return stem, values, (plain, in_words)


def _time(rng: random.Random) -> Stem:
    values = {"a": rng.randint(1, 9), "b": rng.randint(1, 11) * 5, "sixty": 60}
    plain = (Step("s", "a", "*", "sixty", "{},"), Step("r", "s", "+", "b", "{}."))
    in_words = (
        Step("s", "a", "*", "sixty", "The hours are {} minutes."),
        Step("r", "b", "+", "s", "With the rest {}."),
    )
    stem = "How many minutes are {a} hours and {b} minutes?".format(**values)
    return stem, values, (plain, in_words)


def _remainder(rng: random.Random) -> Stem:
    d, k = rng.randint(3, 9), rng.randint(2, 9)
    values = {"d": d, "k": k, "n": d * k + rng.randint(1, d - 1)}
    plain = (Step("s", "d", "*", "k", "{},"), Step("r", "n", "-", "s", "{}."))
    in_words = (
        Step("s", "k", "*", "d", "The largest multiple is {}."),
        Step("r", "n", "-", "s", "The rest is {}."),
    )
    stem = "What is the remainder of {n} divided by {d}?".format(**values)
    return stem, values, (plain, in_words)


def _mean(rng: random.Random) -> Stem:
    m = rng.randint(4, 20)
    x, y = m - rng.randint(1, 3), m + rng.randint(1, 9)
    values = {"x": x, "y": y, "z": 3 * m - x - y, "three": 3}
    if values["z"] < 1:
        return _mean(rng)
    plain = (
        Step("s", "x", "+", "y", "{},"),
        Step("t", "s", "+", "z", "{},"),
        Step("r", "t", "/", "three", "{}."),
    )
    in_words = (
        Step("s", "y", "+", "z", "The last two give {},"),
        Step("t", "x", "+", "s", "all give {},"),
        Step("r", "t", "/", "three", "so the mean is {}."),
    )
    return "What is the mean of {x}, {y} and {z}?".format(**values), values, (plain, in_words)
