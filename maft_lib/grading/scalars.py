r"""Numbers and units: what an answer of one value is worth, exactly, in plain LaTeX (see `latex`).

A number is read as a fraction of integers, never as a float, so large integers keep their last digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_PLAIN = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_SIGN = r"(?P<sign>[-+]?)\s*"
_FRACTION = rf"(?:\\frac\{{\s*(?P<a>[-+]?\s*{_PLAIN})\s*\}}\{{\s*(?P<b>[-+]?\s*{_PLAIN})\s*\}}"
_NUMBER = re.compile(_SIGN + rf"(?P<plain>{_PLAIN})")
_RATIO = re.compile(_SIGN + rf"(?:{_FRACTION}|\(?(?P<c>{_PLAIN})\)?\s*/\s*\(?(?P<d>[-+]?{_PLAIN})\)?))")
_MIXED = re.compile(
    _SIGN
    + r"(?P<whole>\d+)(?:\s*\\frac\{\s*(?P<a>\d+)\s*\}\{\s*(?P<b>\d+)\s*\}|\s+(?P<c>\d+)/(?P<d>\d+))"
)
_REPEATING = re.compile(_SIGN + r"(?P<whole>\d*)\.(?P<once>\d*)\\overline\s*\{(?P<again>\d+)\}")
_POWER_OF_TEN = r"10\s*\^\s*\{?\s*(?P<power>[-+]?\d{1,3})\s*\}?"
_SCIENTIFIC = re.compile(
    _SIGN
    + rf"(?:(?P<plain>{_PLAIN})\s*(?:(?:\\times|\\cdot|x)\s*{_POWER_OF_TEN}|[eE](?P<e>[-+]?\d{{1,3}}))"
    + rf"|{_POWER_OF_TEN.replace('power', 'alone')})"
)

_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SCALES["trillion"] = 10**12
_SCALED = re.compile(
    rf"{_SIGN}(?P<plain>{_PLAIN})\s*(?:\\text\{{)?\s*(?P<scale>{'|'.join(_SCALES)})s?\s*\}}?",
    re.IGNORECASE,
)

# Units that a problem may ask for, each with the spellings that mean the same. Two answers whose units
# are both known and differ are different; any other word after a number is decoration.
_UNITS = """
mm millimeter millimetre; cm centimeter centimetre; m meter metre; km kilometer kilometre;
in inch inches; ft foot feet; yd yard; mi mile; s second sec; min minute; h hour hr; day; week;
month; year yr; mg milligram; g gram; kg kilogram; lb pound lbs; oz ounce; ton tonne;
ml milliliter millilitre; l liter litre; gal gallon; quart; pint; dollar usd buck; cent; euro; gbp;
degree deg; radian rad; am; pm
"""
_UNIT_OF = {name: names.split()[0] for names in _UNITS.split(";") for name in names.split()}
_SPEEDS = {"mph": "mi/h", "kmh": "km/h", "kph": "km/h"}
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}
# Words that change a number instead of decorating it: what they stand after is not stripped of them.
_NOT_UNITS = """
half halves third thirds quarter quarters fourth fourths fifth fifths tenth tenths hundredths tens ones
hundreds lakh crore or and more less least most over under below above negative minus plus times zero
even odd factorial out of not alpha beta gamma delta theta lambda sigma omega phi psi mod modulo
"""
_NO_UNITS = {*_NOT_UNITS.split(), *_SCALES}

_LONGEST_UNIT = 60  # characters
_TOKEN = re.compile(
    r"\s+|\\text\{(?P<text>[^{}]*)\}|(?P<sign>\\(?:degree|euro|pound|yen|rupee)|\\?\$|%)|(?P<per>/)"
    r"|\^\s*\{?(?P<power>[23])\}?|(?P<word>[a-zA-Z]+\.?(?:m\.)?)"
)
_START = re.compile(
    r"\s|\\text\{|\\(?:degree|euro|pound|yen|rupee)|\\?\$|%|/\s*[a-zA-Z]{3}|(?<=[\d}])[a-zA-Z]"
)
_LEADING_UNIT = re.compile(
    r"(?P<sign>-?)\s*(?P<unit>\\\$|\$|\\(?:euro|pound|yen|rupee)|\\text\{\s*\\?\$\s*\})\s*(?P<value>-?[\d.\\].*)"
)
_SUM = re.compile(r"(?<=[\w})\]])\s*[-+]")


@dataclass(frozen=True)
class Scalar:
    """One value: its exact number if it is one, how it is written, and its unit if that is known.

    `decimals` counts the digits after the point of a number that is written as a decimal.
    """

    latex: str
    value: Fraction | None = None
    unit: str | None = None
    decimals: int | None = None


def read_number(text: str) -> Scalar | None:
    """A number in any of its notations; None for any other text."""
    text, decimals = text.strip(), None
    if found := _NUMBER.fullmatch(text):
        size, (_, point, places) = _plain(found["plain"]), found["plain"].partition(".")
        decimals = len(places) if point else None
    elif found := _RATIO.fullmatch(text):
        above, below = _plain(found["a"] or found["c"]), _plain(found["b"] or found["d"])
        if not below:
            return None
        size = above / below
    elif found := _MIXED.fullmatch(text):
        part, parts = int(found["a"] or found["c"]), int(found["b"] or found["d"])
        if part >= parts:  # 2 3/2 is not a mixed number but a product
            return None
        size = int(found["whole"]) + Fraction(part, parts)
    elif found := _SCALED.fullmatch(text):
        size = _plain(found["plain"]) * _SCALES[found["scale"].lower()]
    elif found := _REPEATING.fullmatch(text):
        once, again = found["once"], found["again"]
        tail = Fraction(int(once or "0")) + Fraction(int(again), 10 ** len(again) - 1)
        size = int(found["whole"] or "0") + tail / 10 ** len(once)
    elif found := _SCIENTIFIC.fullmatch(text):
        power = int(found["power"] or found["e"] or found["alone"])
        size = _plain(found["plain"] or "1") * Fraction(10) ** power
    else:
        return None
    return Scalar(text, -size if found["sign"] == "-" else size, None, decimals)


def _plain(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits).removesuffix("."))


def strip_unit(text: str) -> tuple[str, str | None]:
    r"""A value without its currency sign, percent sign or unit, and the unit if it is a known one.

    `5\text{ cm}` gives ("5", "cm"), `\$5` gives ("5", "dollar"), `50%` and "12 apples" no unit. Bare
    words are units after a number only, and single letters only if they stand for one (m, g, s, h, l).
    """
    if found := _LEADING_UNIT.fullmatch(text):
        value, unit = found["sign"] + found["value"], _known([found["unit"]])
        return strip_unit(value)[0], unit
    for start in _START.finditer(text, max(1, len(text) - _LONGEST_UNIT)):
        value = text[: start.start()].strip()
        words = _unit_words(text[start.start() :], value)
        if words:
            return value, _known(words)
    return text, None


def _unit_words(tail: str, value: str) -> list[str] | None:
    """The words and signs of what may be the unit of a value; None if it is something else."""
    is_number = read_number(value) is not None
    symbols = is_number or (not _SUM.search(value) and re.search(r"\d|\\pi|\\infty", value))
    words: list[str] = []
    place, spaced = 0, False
    while place < len(tail):
        token = _TOKEN.match(tail, place)
        if token is None:
            return None
        if token["text"] is not None:
            words += re.findall(r"[a-zA-Z]+\.?(?:m\.)?|/|\^\{?[23]|\S", token["text"])
        elif token["word"]:
            known = _unit_of(token["word"]) is not None
            single = len(token["word"].rstrip(".")) == 1
            plain = token["word"].lower() in (*_POWERS, "unit", "units")
            if not (is_number or (symbols and (known or plain) and not single)) or not (
                known or spaced
            ):
                return None
            if not known and len(token["word"]) < 3 or (single and not spaced and words[-1:] != ["/"]):
                return None
            words.append(token["word"])
        elif token["sign"] or token["per"] or token["power"]:
            words.append(token["sign"] or token["per"] or f"^{token['power']}")
        spaced = token[0].isspace()
        place = token.end()
    names = [word.rstrip(".").lower() for word in words if word[0].isalpha()]
    after_degree = any(word.startswith("\\degree") for word in words)
    letters = [n for n in names if len(n) == 1 and _unit_of(n) is None]
    if letters and not (after_degree and letters in (["f"], ["c"])):
        return None
    only_powers = names and set(names) <= set(_POWERS)
    starts_well = words and words[0] not in ("^2", "^3")
    return words if starts_well and not _NO_UNITS & set(names) and not only_powers else None


def _unit_of(word: str) -> str | None:
    word = word.replace(".", "").lower()
    singular = word.removesuffix("s") if len(word) > 2 else word
    return _SPEEDS.get(word) or _UNIT_OF.get(word) or _UNIT_OF.get(singular)


_SIGNS = {
    "\\degree": "degree",
    "\\euro": "euro",
    "\\pound": "gbp",
    "\\yen": "yen",
    "\\rupee": "rupee",
    "$": "dollar",
}


def _known(words: list[str]) -> str | None:
    """The unit that words name, with its power and what it is per; None if it is not known."""
    unit: str | None = None
    exponent = below = ""
    for word in words:
        sign = next((name for mark, name in _SIGNS.items() if mark in word), None)
        name = sign or _unit_of(word)
        if word == "/" or word.lower() == "per":
            below = "/"
        elif word[0] == "^":
            exponent = "^" + word.strip("^{}")
        elif word.lower() in _POWERS:
            exponent = _POWERS[word.lower()]
        elif unit == "degree" and word.lower() in ("f", "c"):
            unit = f"degree {word.lower()}"
        elif name is not None and below == "/":
            below = f"/{name}"
        elif unit is None:
            unit = name
    return unit + exponent + (below if below != "/" else "") if unit else None
