r"""One spelling for the many ways of writing the same mathematics.

`clean` turns what a model puts into its box into plain LaTeX: no layout commands, one command for
each symbol, every argument in braces. It only ever substitutes text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import accumulate

from maft_lib.tasks.worked import LONGEST_ANSWER, boxes

DEEPEST = 24  # nested brackets

_COMMANDS = {
    "×": "times", "·": "cdot", "⋅": "cdot", "∗": "cdot", "≤": "le", "≥": "ge", "≠": "ne", "≈": "approx",
    "∞": "infty", "∪": "cup", "∩": "cap", "∈": "in", "∅": "emptyset", "±": "pm", "π": "pi",
    "θ": "theta", "°": "degree", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee",
}  # fmt: skip
_PARTS = "½⅓⅔¼¾⅕⅙⅛⅜⅝⅞"
_SYMBOLS = str.maketrans(
    dict(zip("−–‐‑÷⁄‘’\u00a0\u2009\u202f\t\n\r", "----//''      "))
    | {symbol: f"\\{command} " for symbol, command in _COMMANDS.items()}
    | {
        part: r"\frac{%s}{%s}" % tuple(unicodedata.normalize("NFKC", part).split("⁄"))
        for part in _PARTS
    }
    | {"ℝ": r"\mathbb{R}", "“": "", "”": "", '"': ""}
)
_WRAPPED = re.compile(
    r"\$\$([^$]*)\$\$|\$([^$]*[^$\\])\$|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*([^*]*)\*\*", re.DOTALL
)
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp"
_NL = r"([\da-zA-Z])"  # a number or a letter as an argument without braces
_RENAMED = {
    "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "langle": "(",
    "rangle": ")", "varnothing": r"\emptyset", "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac",
}  # fmt: skip
_SPELLINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\\(?:left|right|middle)(?![a-zA-Z])\.?", ""),
    (r"\\(?:[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
    (r"\\(?:bf|it|rm|em|underline|bm|pmb|(?:text)?color\s*\{[^{}]*\})(?![a-zA-Z])\s*", ""),
    (r"(?<=\d)\s+\([a-z]{3,}(?:[- ][a-z]+)*\)$", ""),  # 12 (twelve)
    (r"(?<![a-zA-Z\\])(?:USD|US(?=\s*\\?\$))\s*(?=\\?\$?\s*\d)", r"\\$"),
    (r"(?<![a-zA-Z\\])(?:Rs\.?|INR)\s*(?=\d)", r"\\rupee "),
    (r"(?<![a-zA-Z\\])EUR\s*(?=\d)", r"\\euro "),
    (r"\s*\\!\s*", ""),
    (r"\\text\s+([a-zA-Z])(?![a-zA-Z])", r"\\text{\1}"),
    (r"(?<=\d)(?<!\\)\\[,; ](?=\d)", ""),
    (r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~", " "),
    (r"\\(?:mathbb|Bbb|mathbf)\s*\{?\s*R(?![a-zA-Z])\s*\}?", r"(-\\infty,\\infty)"),
    (r"\\(?:math(?:rm|bf|it|sf)|text(?:bf|it|rm|up|normal)|[mh]box)(?![a-zA-Z])", r"\\text"),
    (r"\\(?:operatorname\*?|boldsymbol)(?![a-zA-Z])", r"\\text"),
    (r"\\text\s+\{", r"\\text{"),
    (r"\\text\{([-\d.,]*)\}", r"\1"),
    (r"(?<=\d)\{\s*,\s*\}(?=\d{3})", ""),
    (r"\{\s*,\s*\}", ","),
    (r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<=", r"\\le "),
    (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>=", r"\\ge "),
    (r"\\(?:neq|ne)(?![a-zA-Z])|(?<!\d)!=", r"\\ne "),
    *((rf"\\{command}(?![a-zA-Z])", name.replace("\\", r"\\")) for command, name in _RENAMED.items()),
    (r"(?<![a-zA-Z\\])(?:[Ii]nfinity|inf)(?![a-zA-Z])|\\text\{\s*[Ii]nfinity\s*\}", r"\\infty "),
    (r"\+\s*\\infty", r"\\infty"),
    (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-zA-Z]))", r"\\degree "),
    (r"\\%", "%"),
    (r"\\overline\s*\{([A-Z]{2,})\}", r"\1"),
    (r"\\(?:angle|triangle)(?![a-zA-Z])\s*", ""),
    (r"\*\*", "^"),
    (r"\^\s*\(((?:[^()]|\([^()]*\))*)\)", r"^{\1}"),
    (rf"(?<![a-zA-Z\\])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1 "),
    (r"(?<![a-zA-Z\\])sqrt(?![a-zA-Z])", r"√"),
    (r"∛\s*(\d+|[a-zA-Z])?", lambda found: rf"\sqrt[3]{{{found[1]}}}" if found[1] else r"\sqrt[3]"),
    (r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\\sqrt{\1}"),
    (r"√", r"\\sqrt"),
    (r"\^\s*-\s*(\d+|[a-zA-Z])", r"^{-\1}"),
    (r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}", r"\\binom{\1}{\2}"),
    (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
    (r"\\sqrt(\[3\])?\s*\(([^()]*)\)", r"\\sqrt\1{\2}"),
    (rf"\\sqrt\s*(\[[^\]]*\])?\s*{_NL}", r"\\sqrt\1{\2}"),
    (rf"\\frac\s*{_NL}\s*\{{", r"\\frac{\1}{"),
    (rf"\\frac\s*(\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}})\s*{_NL}", r"\\frac\1{\2}"),
    (rf"\\frac\s*{_NL}\s*{_NL}", r"\\frac{\1}{\2}"),
    (r"\\frac\s+\{", r"\\frac{"),
    (r"\\sqrt\[([3579])\]\{\s*-\s*(\d+)\s*\}", r"-\\sqrt[\1]{\2}"),
    (
        r"(?<![\w.}^/])(\d+)\s*/\s*(\d+)(?=\s*[a-zA-Z\\(])(?!\s+[a-zA-Z]{2}|\s*\\text)",
        r"\\frac{\1}{\2}",
    ),
    (r"\*", r"\\cdot "),
    (r"\s+", " "),
)


# One value said twice: 3 times 4, or 12; 3^2, or 9; 20% of 50, that is 10.
_RESTATED = re.compile(
    r"[^\n]*\b(?:times|plus|minus|of|by|half)\b[^\n]*,\s*or\s+(?=\S*\d)"
    r"|[^\n]*\d\s*(?:[*+^]|\\times|\\cdot)[\s{(]*\d[\d)}]*\$?,\s*or\s+(?=\$?[-\d])"
    r"|[^\n]*,\s*(?:that is|i\.\s?e\.)[ ,]*(?=\S)"
)


def restated(text: str) -> str:
    """What a text that says its value twice says last; any other text as it is."""
    return text[found.end() :] if (found := _RESTATED.match(text)) else text


def clean(text: str) -> str | None:
    """The answer in one spelling, that of the last box if there are boxes.

    None if it is empty, too long, too deep or has invisible characters (controls, bidirectional marks,
    zero-width characters, lone surrogates): what a reader cannot see must not make an answer right.
    """
    for _ in range(2):  # a box in a box, and no deeper
        if r"\boxed" in text or r"\fbox" in text:
            text = (boxes(text) or [""])[-1]
    text = text.strip()
    if not text or len(text) > LONGEST_ANSWER:
        return None
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda f: "^{%s}" % unicodedata.normalize("NFKC", f[0]), text)
    text = re.sub("[₀-₉]+", lambda f: "_{%s}" % unicodedata.normalize("NFKC", f[0]), text)
    text = re.sub(r"(?<!\\)\$([^$]+)(?<!\\)\$", r"\1", text.translate(_SYMBOLS))
    if any(unicodedata.category(character)[0] == "C" for character in text):
        return None
    while True:
        text = re.sub(r"(?<![.\\])[.,;]$", "", text.strip()).strip()
        if not (wrapped := _WRAPPED.fullmatch(text)):
            break
        text = next(inside for inside in wrapped.groups() if inside is not None)
    text = restated(text)
    text = re.sub(r"^(?:about|around|approximately|approx\.?)\s+(?=\S)", "", text)
    if r"\begin" not in text:  # doubled backslashes of a model that escapes its LaTeX
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)
    for pattern, replacement in _SPELLINGS:
        text = re.sub(pattern, replacement, text)
    text = text.strip()
    depths = accumulate((character in _OPEN) - (character in _CLOSE) for character in text)
    return text if text and max(depths) <= DEEPEST else None


_OPEN, _CLOSE = "([{", ")]}"


def closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`, any kind by any; else -1."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in _OPEN) - (text[place] in _CLOSE)
        if depth == 0:
            return place
    return -1


def split(text: str, separator: str) -> list[str]:
    """The parts of a text, stripped, between the matches of a pattern outside all brackets."""
    wanted, parts, depth, last, place = re.compile(separator), [], 0, 0, 0
    while place < len(text):
        if text.startswith(r"\begin", place):
            depth += 1
        elif text.startswith(r"\end", place):
            depth -= 1
        found = wanted.match(text, place) if depth == 0 else None
        if found and found.end() > place:
            parts.append(text[last:place].strip())
            last = place = found.end()
            continue
        depth += (text[place] in _OPEN) - (text[place] in _CLOSE)
        place += 1
    return [*parts, text[last:].strip()]
