r"""Numbers and units: what an answer of one value is worth, exactly, in plain LaTeX (see `latex`).

A number is read as a fraction of integers, never as a float, so large integers keep their last digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SCALES["trillion"] = 10**12

# Units that a problem may ask for, each with the spellings that mean the same. Two answers whose units
# are both known and differ are different; any other word after a number is decoration.
_UNITS = r"""
mm millimeter millimetre; cm centimeter centimetre; m meter metre; km kilometer kilometre;
in inch inches; ft foot feet; yd yard; mi mile; s second sec; min minute; h hour hr; day; week;
month; year yr; mg milligram; g gram; kg kilogram; lb pound lbs; oz ounce; ton tonne;
ml milliliter millilitre; l liter litre; gal gallon; quart; pint; dollar usd buck $ \$; cent;
euro \euro; gbp \pound; yen \yen; rupee \rupee; degree deg \degree; radian rad; am; pm
"""
_UNIT_OF = {name: names.split()[0] for names in _UNITS.split(";") for name in names.split()}
_SPEEDS = {"mph": "mi/h", "kmh": "km/h", "kph": "km/h"}  # which have no plural
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}
# Words that change a number instead of decorating it: what they stand after is not stripped of them.
_NOT_UNITS = """
half halves third thirds quarter quarters fourth fourths fifth fifths tenth tenths hundredths tens ones
hundreds lakh crore or and more less least most over under below above negative minus plus times zero
even odd factorial out of not alpha beta gamma delta theta lambda sigma omega phi psi mod modulo
"""
_NO_UNITS = {*_NOT_UNITS.split(), *_SCALES}

_LONGEST_UNIT = 60  # characters
_CURRENCY = r"\\(?:euro|pound|yen|rupee)|\\?\$"
_MARK = rf"{_CURRENCY}|\\degree|%"
_WORD = r"[a-zA-Z]+\.?(?:m\.)?"
_TOKEN = re.compile(
    rf"\s+|\\text\{{(?P<text>[^{{}}]*)\}}|(?P<mark>{_MARK}|/)|\^\s*\{{?(?P<power>[23])\}}?|(?P<word>{_WORD})"
)
_START = re.compile(rf"\s|\\text\{{|{_MARK}|/\s*[a-zA-Z]{{3}}|(?<=[\d}}])[a-zA-Z]")
_LEADING_UNIT = re.compile(
    rf"(?P<sign>-?)\s*(?P<unit>{_CURRENCY}|\\text\{{\s*\\?\$\s*\}})\s*(?P<value>-?[\d.\\].*)"
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


def _plain(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits).removesuffix("."))


def _mixed(whole: str, above: str, below: str) -> Fraction | None:
    proper = int(above) < int(below)  # 2 3/2 is not a mixed number but a product
    return int(whole) + Fraction(int(above), int(below)) if proper else None


def _repeating(whole: str, once: str, again: str) -> Fraction:
    times = 10 ** len(once) * (10 ** len(again) - 1)
    return Fraction(int(whole + once + again) - int(whole + once or "0"), times)


_PLAIN = r"(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+)"
_SIGNED = rf"\{{\s*([-+]?\s*{_PLAIN})\s*\}}"
_TEN_TO = r"10\s*\^\s*\{?\s*([-+]?\d{1,3})\s*\}?"
_NOTATIONS = (  # of a number without its sign, and what its parts are worth
    (rf"({_PLAIN})", _plain),
    (rf"\\frac{_SIGNED}{_SIGNED}", lambda a, b: _plain(a) / _plain(b)),
    (rf"\(?({_PLAIN})\)?\s*/\s*\(?([-+]?{_PLAIN})\)?", lambda a, b: _plain(a) / _plain(b)),
    (r"(\d+)\s*\\frac\{\s*(\d+)\s*\}\{\s*(\d+)\s*\}", _mixed),
    (r"(\d+)\s+(\d+)/(\d+)", _mixed),
    (
        rf"({_PLAIN})\s*(?:\\text\{{)?\s*((?i:{'|'.join(_SCALES)}))(?i:s?)\s*\}}?",
        lambda a, scale: _plain(a) * _SCALES[scale.lower()],
    ),
    (r"(\d*)\.(\d*)\\overline\s*\{(\d+)\}", _repeating),
    (
        rf"({_PLAIN})\s*(?:\\times|\\cdot|x)\s*{_TEN_TO}",
        lambda a, e: _plain(a) * Fraction(10) ** int(e),
    ),
    (rf"({_PLAIN})\s*[eE]([-+]?\d{{1,3}})", lambda a, e: _plain(a) * Fraction(10) ** int(e)),
    (_TEN_TO, lambda e: Fraction(10) ** int(e)),
)


def read_number(text: str) -> Scalar | None:
    """A number in any of its notations; None for any other text."""
    text = text.strip()
    size = re.sub(r"^[-+]\s*", "", text)
    for notation, worth in _NOTATIONS:
        if found := re.fullmatch(notation, size):
            try:
                value = worth(*found.groups())
            except ZeroDivisionError:
                return None
            decimals = len(size.partition(".")[2]) if worth is _plain and "." in size else None
            value = -value if value and text[0] == "-" else value
            return None if value is None else Scalar(text, value, None, decimals)
    return None


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
        if words := _unit_words(text[start.start() :], value):
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
            words += re.findall(rf"{_WORD}|/|\^\{{?[23]|\S", token["text"])
        elif word := token["word"]:
            known, single = _unit_of(word) is not None, len(word.rstrip(".")) == 1
            named = known or word.lower() in (*_POWERS, "unit", "units")
            alone = single and not spaced and words[-1:] != ["/"]
            if not (is_number or (symbols and named and not single)) or alone:
                return None
            if not (known or (spaced and len(word) > 2)):
                return None
            words.append(word)
        elif not token[0].isspace():
            words.append(token["mark"] or f"^{token['power']}")
        spaced = token[0].isspace()
        place = token.end()
    names = {word.rstrip(".").lower() for word in words if word[0].isalpha()}
    letters = {name for name in names if len(name) == 1 and _unit_of(name) is None}
    if letters and not (r"\degree" in words and letters in ({"f"}, {"c"})):
        return None
    starts_well = words and words[0] not in ("^2", "^3")
    only_powers = names and names <= _POWERS.keys()
    return words if starts_well and not _NO_UNITS & names and not only_powers else None


def _unit_of(word: str) -> str | None:
    word = re.sub(r"[.{}\s]|\\text", "", word).lower()
    singular = word.removesuffix("s") if len(word) > 2 else word
    return _SPEEDS.get(word) or _UNIT_OF.get(word) or _UNIT_OF.get(singular)


def _known(words: list[str]) -> str | None:
    """The unit that words name, with its power and what it is per; None if it is not known."""
    unit: str | None = None
    exponent = below = ""
    for word in map(str.lower, words):
        name = _unit_of(word)
        if word in ("/", "per"):
            below = "/"
        elif word[0] == "^" or word in _POWERS:
            exponent = _POWERS.get(word) or "^" + word.strip("^{}")
        elif unit == "degree" and word in ("f", "c"):
            unit = f"degree {word}"
        elif name and below == "/":
            below = f"/{name}"
        elif unit is None:
            unit = name
    return unit + exponent + below.rstrip("/") if unit else None
