r"""Numbers and units: what an answer of one value is worth, exactly. Knows plain LaTeX (see `latex`).

A number is read as a fraction of integers, never as a float, so 3.14 is not 314, 1/2 is not 7/2 and
large integers keep their last digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
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

_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE_NAMES = "|".join(_SCALES)
_SCALED = re.compile(
    rf"{_SIGN}(?P<plain>{_PLAIN})\s*(?:\\text\{{)?\s*(?P<scale>{_SCALE_NAMES})s?\s*\}}?", re.IGNORECASE
)

# Units that a problem may ask for, each with the spellings that mean the same. Two answers whose units
# are both known and differ are different; any other word after a number is decoration.
_UNITS = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "s": "second sec",
    "min": "minute",
    "h": "hour hr",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram",
    "lb": "pound lbs",
    "oz": "ounce",
    "ton": "tonne",
    "ml": "milliliter millilitre",
    "l": "liter litre",
    "gal": "gallon",
    "quart": "",
    "pint": "",
    "dollar": "usd buck",
    "cent": "",
    "euro": "",
    "degree": "deg",
    "radian": "rad",
    "mph": "",
    "am": "",
    "pm": "",
}
_UNIT_OF = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}

_KNOWN = "|".join(sorted((name for name in _UNIT_OF if len(name) > 1), key=len, reverse=True))
# A unit stands in \text{}, after a space, or is one that we know; so 2abc stays a product.
_WORD = (
    rf"(?:(?!\\text\{{\s*(?:{_SCALE_NAMES})|{_SCALE_NAMES})"
    rf"(?:\\text\{{[^{{}}]*\}}|(?:(?<=\s)[a-zA-Z][a-zA-Z]+|(?:{_KNOWN})s?)(?![a-zA-Z])\.?|[ap]\.\s?m\.?))"
)
_WORDS = rf"(?:\s|{_WORD}(?:\s*\^\s*\{{?[23]\}}?)?|\\degree|\\euro|\\pound|\\?\$|%)"
_TRAILING_UNIT = re.compile(rf"(?P<value>.*?[\d}})\].a-zA-Z])(?P<unit>(?:{_WORDS})+)", re.DOTALL)
_LEADING_UNIT = re.compile(
    r"(?P<sign>-?)\s*(?P<unit>\\\$|\$|\\euro|\\pound|\\text\{\s*\\?\$\s*\})\s*(?P<value>-?[\d.\\].*)"
)
_LETTER_UNIT = re.compile(r"(?P<value>.*\d)\s+(?P<unit>[mgshlL])")


@dataclass(frozen=True)
class Scalar:
    """One value: its exact number if it is one, how it is written, and its unit if that is known.

    `decimals` counts the digits after the point of a number that is written as a decimal.
    """

    latex: str
    value: Fraction | None = None
    unit: str | None = field(default=None)
    decimals: int | None = None


def read_number(text: str) -> Scalar | None:
    """A number in any of its notations; None if the text is none, or not a finite one."""
    text = text.strip()
    if found := _NUMBER.fullmatch(text):
        digits = found["plain"]
        point = digits.find(".")
        return _number(text, found, _plain(digits), None if point < 0 else len(digits) - point - 1)
    if found := _RATIO.fullmatch(text):
        above, below = _plain(found["a"] or found["c"]), _plain(found["b"] or found["d"])
        return _number(text, found, above / below) if below else None
    if found := _MIXED.fullmatch(text):
        part, parts = int(found["a"] or found["c"]), int(found["b"] or found["d"])
        if part < parts:  # 2 3/2 is no mixed number but a product
            return _number(text, found, int(found["whole"]) + Fraction(part, parts))
    if found := _SCALED.fullmatch(text):
        return _number(text, found, _plain(found["plain"]) * 10 ** _SCALES[found["scale"].lower()])
    if found := _REPEATING.fullmatch(text):
        once, again = found["once"], found["again"]
        tail = Fraction(int(once or "0")) + Fraction(int(again), 10 ** len(again) - 1)
        return _number(text, found, int(found["whole"] or "0") + tail / 10 ** len(once))
    if found := _SCIENTIFIC.fullmatch(text):
        power = int(found["power"] or found["e"] or found["alone"])
        return _number(text, found, _plain(found["plain"] or "1") * Fraction(10) ** power)
    return None


def _number(text: str, found: re.Match, size: Fraction, decimals: int | None = None) -> Scalar:
    return Scalar(text, -size if found["sign"] == "-" else size, None, decimals)


def _plain(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits).removesuffix("."))


def strip_unit(text: str) -> tuple[str, str | None]:
    r"""A value without its currency sign, percent sign or unit, and the unit if it is a known one.

    `5\text{ cm}` gives ("5", "cm"), `\$5` gives ("5", "dollar"), `50%` and "12 apples" no unit.
    """
    if found := _LEADING_UNIT.fullmatch(text):
        value, unit = found["sign"] + found["value"], _known(found["unit"])
        return strip_unit(value)[0], unit
    found = _LETTER_UNIT.fullmatch(text) or _TRAILING_UNIT.fullmatch(text)
    if found and found["value"].strip() and re.search(r"\d|\\pi|\\infty", found["value"]):
        return found["value"].strip(), _known(found["unit"])
    return text, None


def _known(words: str) -> str | None:
    words = words.replace(r"\degree", " degree ").replace(r"\euro", " euro ").replace("$", " dollar ")
    power = re.search(r"\^\{?([23])", words)
    plain = re.sub(r"\\text|\\pound|[{}\\^%]|\b[23]\b", " ", words.lower().replace(".", ""))
    names = plain.split()
    exponent = f"^{power[1]}" if power else ""
    unit = None
    for name in names:
        exponent = _POWERS.get(name, exponent)
        unit = unit or _UNIT_OF.get(name) or _UNIT_OF.get(name.removesuffix("s"))
    return unit + exponent if unit else None
