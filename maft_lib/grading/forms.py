r"""Reads an answer into its form: a scalar, words, a tuple or interval, a set, a matrix, an equation.

`read` understands plain LaTeX (see `latex`) and decides what an answer *is*; `equivalence` decides
which answers are the same. Nothing here evaluates anything: what is not a number stays LaTeX.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

from maft_lib.grading.equivalence import Assignment, Form, Relation, Several, Words
from maft_lib.grading.latex import clean, closing, split
from maft_lib.grading.scalars import Scalar, read_number, strip_unit

_EMPTY = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:\\text\{)?\s*(?:(?:the )?empty set|no (?:real )?solutions?)\s*\}?", re.I
)
_REALS = re.compile(r"^(?:(?:\\text\{)?\s*(?:all )?real numbers\s*\}?|all reals)$", re.I)
_TEXT_ONLY = re.compile(r"(?:\\text\{[^{}]*\}|[\s.'()])+")
_BARE_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|['. ])*|[^\W\d_]{3,}(?: +\w+)+")
_TIME = re.compile(r"\d{1,2}:\d\d\s*(?:\\text\{)?\s*[ap]\.?\s?m\.?\s*\}?", re.I)
_BASED = re.compile(
    r"(?:\\text\{)?(?P<digits>-?[0-9A-Z,]+)\s*(?:_\s*\{?|\}?\s*(?:\\text\{)?\s*base)\s*"
    r"(?:\\text\{)?(?P<base>\d{1,2}|[a-z]+)\}?\s*\}?"
)
_BASES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_LETTERS = r"(?:\\[a-zA-Z]+|[a-zA-Z]|[A-Z]{2,}|[a-zA-Z]{3,}|\\text\{[^{}]+\})"
_INDEX = r"(?:_\{?\w+\}?)?"
_NAME = re.compile(  # x, x_1, \theta, AB, f(x), (x, y)
    rf"{_LETTERS}'?{_INDEX}(?:\s*\(\s*\\?[a-zA-Z]+(?:\s*,\s*\\?[a-zA-Z]+)*\s*\))?"
    rf"|\(\s*[a-zA-Z]{_INDEX}(?:\s*,\s*[a-zA-Z]{_INDEX})+\s*\)"
)
# What a left side may ask for, other than a name: f(3), |AB|, m\angle A, [ABC], \sin A, a/b, a+b.
_APPLIED = re.compile(
    rf"(?P<name>(?:\\[a-zA-Z]+|\\text\{{[^{{}}]+\}}|[A-Za-w]{{1,3}}){_INDEX}'*)(?:\^\{{-1\}})?\s*(?=[(\[])"
)
_QUANTITY = re.compile(
    r"\|[^|xy]*\||m?\s*[A-Z]+|\[[A-Z]+\]|\\(?:sin|cos|tan|log|ln)(?![a-zA-Z])[^xy]*"
    r"|\\frac\{[a-wA-Z]+\}\{[a-wA-Z]+\}|[a-wA-Z]{1,2}/[a-wA-Z]{1,2}|[a-wA-Z](?:\s*[-+]\s*[a-wA-Z])+"
)
_SET_OF = re.compile(
    rf"(?P<name>{_LETTERS}{_INDEX})\s*(?:\\in[^|:]*?)?(?:\\mid(?![a-zA-Z])|\||:)(?P<which>.*)"
)
_HEDGED = re.compile(r"(?:\\text\{\s*)?(?:between|either|maybe|perhaps)\b", re.I)
_COMMA = r"(?<!\d),|,(?!\d{3}(?!\d))"  # no separator of thousands
_AND = r"\\text\{[ ,]*(?:and|or)[ ,]*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])|\\(?:lor|vee)(?![a-zA-Z])"
_SEPARATOR = f"{_COMMA}|;|{_AND}"
_ORDER = r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>"
_MATRIX = re.compile(
    r"(?P<open>[\[(]?)\s*\\begin\{(?P<kind>[pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr| ]*\})?"
    r"(?P<body>(?:(?!\\begin).)*)\\end\{(?P=kind)\}\s*(?P<close>[\])]?)",
    re.DOTALL,
)
_LETTER = re.compile(r"(?<!\\)(?<![a-zA-Z])[a-zA-Z]")  # of a variable, not of a command
_MIXED = re.compile(r"(?<![\w.^}])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}")
_UNREADABLE = re.compile(r"\d\s*_|'|\^\s*\{?\s*(?:T|\\top|\\dagger)(?![a-zA-Z])|\.\.|\\[lc]?dots")
_FACTOR = re.compile(r"(?<![\w.^])(\d+(?:\.\d+)?)\s*(?=\()")  # 2(3) is a product
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")


def read(answer: str) -> Form | None:
    """The form of a mathematical answer; None if it cannot be one (empty, too long, unprintable)."""
    text = clean(answer) or ""
    if _HEDGED.match(text):
        return None
    return _form(text) if re.search(r"[^\W_]|\\\{|\\emptyset|\\infty", text) else None


def _form(text: str) -> Form:
    text = text.strip()
    while text.startswith("{") and closing(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    value, unit = strip_unit(text)
    if number := read_number(value):
        return replace(number, unit=unit)
    if _EMPTY.fullmatch(text):
        return Several("set", (), r"\emptyset")
    text = _REALS.sub(r"(-\\infty,\\infty)", text)
    for reader in (_words, _based, _matrix, _set_of, _union, _several, _bracketed, _related, _ratio):
        if form := reader(text):
            return form
    return _scalar(text)


def _words(text: str) -> Form | None:
    """Words: text in \\text{}, a clock time, or a bare word that is no product of variables."""
    if _TIME.fullmatch(text):
        return Words(_letters(text))
    if "\\text" in text and _TEXT_ONLY.fullmatch(text):
        inside = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip()
        if re.search(_SEPARATOR, inside) and "\\text" not in inside:
            return _several(inside)
        if single := re.fullmatch(r"\(?\s*([A-Za-z])\s*\)?", inside):
            return Scalar(single[1])
        return _form(inside) if re.search(r"^\W*\d", inside) else Words(_letters(inside))
    bare = _BARE_WORDS.fullmatch(text.replace("\\ ", " ")) and not re.search(_SEPARATOR, text)
    letters = _letters(text)
    return Words(letters) if bare and (len(letters) > 2 or letters == "no") else None


def _letters(text: str) -> str:
    text = re.sub(r"\\text\{|\}|\\", "", text)
    return re.sub(r"[\s.'()]|\b(?:the|a|an)\s", "", text).casefold()


def _based(text: str) -> Form | None:
    found = _BASED.fullmatch(text)
    if not found:
        return None
    digits, base = found["digits"].replace(",", ""), found["base"]
    number = int(base) if base.isdigit() else _BASES.index(base) if base in _BASES else 0
    with suppress(ValueError):  # digits that the base does not have
        if number and digits.lstrip("-")[:1].isdigit():
            return Scalar(digits, Fraction(int(digits, number)), "base")
    return None


def _matrix(text: str) -> Form | None:
    found = _MATRIX.fullmatch(text)
    if not found:
        return None
    body = found["body"].replace(r"\hline", "").strip()
    entries = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", body) if row.strip()]
    rows = tuple(Several("row", tuple(map(_form, row)), "") for row in entries)
    return Several("matrix", rows, rf"\begin{{pmatrix}}{body}\end{{pmatrix}}") if rows else None


def _set_of(text: str) -> Form | None:
    """A set by its condition, {x | x > 3}, as the interval that the condition says."""
    found = _SET_OF.fullmatch(text.removeprefix(r"\{").removesuffix(r"\}").strip())
    condition = _related(found["which"].strip()) if found else None
    if found and isinstance(condition, Assignment) and condition.name == _name(found["name"]):
        return condition.value
    return None


def _union(text: str) -> Form | None:
    parts = split(text, r"\\cup(?![a-zA-Z])")
    if len(parts) < 2 or not all(parts) or len(split(text, "=|\\\\in ")) > 1:
        return None
    return Several("union", tuple(_form(part) for part in parts), text)


def _several(text: str) -> Form | None:
    """Several answers side by side: 1, 2 and 3; also a plus-minus sign, which gives two."""
    parts = [part for part in split(text, _SEPARATOR) if part]
    if len(parts) < 2:
        return _plus_minus(text)
    items = _items(parts)
    bounds = [
        i for i in items if isinstance(i, Assignment) and getattr(i.value, "kind", "x")[:1] in "([:"
    ]
    if len(bounds) == len(items) and len({i.name for i in bounds}) == 1 and re.search(r"\bor\b", text):
        union = Several("union", tuple(i.value for i in bounds), text)  # x < 1 or x > 3
        return Assignment(bounds[0].name, union, text)
    return Several("list", items, text)


def _plus_minus(text: str) -> Form | None:
    parts = re.split(r"\\(?:pm|mp)(?![a-zA-Z])", text)
    if len(parts) != 2 or re.search(r"=|\\in(?![a-zA-Z])", text):
        return None
    before, after = parts
    return Several("list", tuple(_form(f"{before}{sign}{after}") for sign in "+-"), text)


def _items(parts: list[str]) -> tuple[Form, ...]:
    forms = map(_form, parts)
    nested = (f.items if isinstance(f, Several) and f.kind == "list" else (f,) for f in forms)
    return tuple(item for group in nested for item in group)


def _bracketed(text: str) -> Form | None:
    if text.startswith("\\{") and closing(text, 1) == len(text) - 1 and text.endswith("\\}"):
        inside = text[2:-2].strip()
        if re.search(r"\\mid|\||:", inside):
            return None
        parts = [part for part in split(inside, f",|{_SEPARATOR}") if part]
        return Several("set", _items(parts), text)
    if text[:1] in ("(", "[") and closing(text, 0) == len(text) - 1:
        parts = split(text[1:-1], r",|;")
        if len(parts) > 1 and all(parts):
            opening = "(" if parts[0] == r"-\infty" else text[0]
            ending = ")" if parts[-1] == r"\infty" else text[-1]
            return Several(opening + ending, tuple(_form(part) for part in parts), text)
        if len(parts) == 1 and text[0] == "(" and text[-1] == ")":
            return _form(text[1:-1])
    return None


def _related(text: str) -> Form | None:
    """Equations, memberships and inequalities; those that give one name a value as assignments."""
    member = split(text, r"\\in(?![a-zA-Z])")
    if len(member) == 2 and _NAME.fullmatch(member[0]):
        return Assignment(_name(member[0]), _form(member[1]), text)
    if len(split(text, _ORDER)) > 1:
        return _inequality(text) or Relation(text)
    unequal = split(text, r"\\ne(?![a-zA-Z])")
    if len(unequal) == 2 and _NAME.fullmatch(unequal[0]) and read_number(unequal[1]):
        beside = _form(rf"(-\infty,{unequal[1]})\cup({unequal[1]},\infty)")  # x != 5: all other numbers
        return Assignment(_name(unequal[0]), beside, text)
    if len(unequal) > 1:
        return Relation(text)
    exact = split(text, r"\\approx(?![a-zA-Z])")
    if len(exact) == 2:
        left, right = exact
        named = right and _NAME.fullmatch(left)
        return Assignment(_name(left), _form(right), text) if named else _form(left or right)
    sides = split(text, "=|\\\\equiv ")
    if len(sides) < 2 or not all(sides):
        return None
    constant = not _LETTER.search(strip_unit(sides[-1])[0])
    quantity = len(sides) == 2 and (constant or "(" in text) and _is_quantity(sides[0])
    if _NAME.fullmatch(sides[0]) or quantity:
        return Assignment(_name(sides[0]), _form(sides[-1]), f"{sides[0]}={sides[-1]}")
    if _NAME.fullmatch(sides[-1]) and len(sides) == 2 and read_number(sides[0]):
        return Assignment(_name(sides[-1]), _form(sides[0]), text)
    if constant and (len(sides) > 2 or not _LETTER.search("".join(sides[:-1]))):
        return _form(sides[-1])
    return Relation(text)


def _is_quantity(left: str) -> bool:
    applied = _APPLIED.match(left)
    if applied and closing(left, applied.end()) == len(left) - 1:
        return applied["name"] not in left[applied.end() :]  # n(n+1) is a product
    return _QUANTITY.fullmatch(left) is not None


def _name(text: str) -> str:
    return "+".join(sorted(re.sub(r"[\s{}\\|]", "", text).split("+")))


def _inequality(text: str) -> Form | None:
    """An interval for a name: x > 3, 0 <= x < 1; None for what bounds no single name by constants."""
    signs, sides = re.findall(_ORDER, text), split(text, _ORDER)
    directions = {sign in ("<", r"\le") for sign in signs}  # two in 0 < x > 3
    if len(sides) != len(signs) + 1 or len(sides) > 3 or not all(sides) or len(directions) > 1:
        return None
    if directions == {False}:
        sides, signs = sides[::-1], signs[::-1]
    if len(sides) == 2 and _NAME.fullmatch(sides[0]):  # bounded on one side: the other end is infinite
        sides, signs = [r"-\infty", *sides], ["<", *signs]
    elif len(sides) == 2:
        sides, signs = [*sides, r"\infty"], [*signs, "<"]
    low, name, high = sides
    named = [_NAME.fullmatch(end) and "\\" not in end for end in (low, high)]
    if not _NAME.fullmatch(name) or any(named):
        return None
    opening, ending = "[" if "e" in signs[0] else "(", "]" if "e" in signs[1] else ")"
    return Assignment(_name(name), _bracketed(f"{opening}{low},{high}{ending}") or Relation(text), text)


def _ratio(text: str) -> Form | None:
    parts = [read_number(part) for part in split(text, r":|\\colon(?![a-zA-Z])")]
    values = [part.value for part in parts if part and part.value is not None]
    if len(values) < 2 or len(values) < len(parts) or not values[-1]:
        return None
    shares = [Scalar(text, value / values[-1]) for value in values[:-1]]
    return shares[0] if len(shares) == 1 else Several(":", tuple(shares), text)


def _scalar(text: str) -> Form:
    if _UNREADABLE.search(text):  # what the grammar would drop, so that 221_3 were 221_4
        return Words(re.sub(r"[\s{}]", "", text))
    text = re.sub(r"\\text\{\s*([a-zA-Z])\s*\}", r" \1 ", text)
    text = _FACTOR.sub(r"\1\\cdot ", _MIXED.sub(_improper, text))
    if _TRIGONOMETRIC.search(text):
        return Scalar(re.sub(r"(\d+(?:\.\d+)?)\s*\\degree", r"{(\\frac{\1\\pi}{180})}", text))
    value, unit = strip_unit(text)
    if value == text:
        return Scalar(text)
    inside = _form(value)
    if isinstance(inside, Scalar) and inside.unit != "base":
        return replace(inside, unit=unit or inside.unit)
    return Scalar(value, None, unit)


def _improper(mixed: re.Match) -> str:
    r"""3\frac{1}{2} within an expression as one fraction; a factor before a fraction as it is."""
    whole, above, below = (int(digits) for digits in mixed.groups())
    return rf"\frac{{{whole * below + above}}}{{{below}}}" if above < below else mixed[0]
