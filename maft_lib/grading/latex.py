r"""One spelling for the many ways of writing the same mathematics. Knows no meaning, only notation.

`clean` turns what a model puts into its box into plain LaTeX: no layout commands, one command for
each symbol, every argument in braces. It only ever substitutes text.
"""

from __future__ import annotations

import re
import unicodedata

from maft_lib.tasks.worked import LONGEST_ANSWER, boxes

LONGEST = LONGEST_ANSWER
DEEPEST = 24  # nested brackets

_SYMBOLS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "‐": "-",
        "‑": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "∗": r"\cdot ",
        "÷": "/",
        "⁄": "/",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "∞": r"\infty ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∅": r"\emptyset ",
        "ℝ": r"\mathbb{R}",
        "±": r"\pm ",
        "π": r"\pi ",
        "θ": r"\theta ",
        "°": r"\degree ",
        "½": r"\frac{1}{2}",
        "⅓": r"\frac{1}{3}",
        "⅔": r"\frac{2}{3}",
        "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}",
        "⅕": r"\frac{1}{5}",
        "⅙": r"\frac{1}{6}",
        "⅛": r"\frac{1}{8}",
        "⅜": r"\frac{3}{8}",
        "⅝": r"\frac{5}{8}",
        "⅞": r"\frac{7}{8}",
        "“": "",
        "”": "",
        '"': "",
        "‘": "'",
        "’": "'",
        "€": r"\euro ",
        "£": r"\pound ",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "\t": " ",
        "\n": " ",
        "\r": " ",
    }
)

_WRAPPED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\$\$(?P<inside>[^$]*)\$\$",
        r"\$(?P<inside>[^$]*[^$\\])\$",
        r"\\\((?P<inside>.*)\\\)",
        r"\\\[(?P<inside>.*)\\\]",
        r"\*\*(?P<inside>[^*]*)\*\*",
    )
)

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp"
_NUMBER_OR_LETTER = r"(?:\d|[a-zA-Z])"
_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|middle)(?![a-zA-Z])\.?", ""),
        (r"\\(?:[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
        (r"\s*\\!\s*", ""),
        (r"\\text\s+([a-zA-Z])(?![a-zA-Z])", r"\\text{\1}"),
        (r"(?<=\d)(?<!\\)\\[,; ](?=\d)", ""),
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![a-zA-Z]))|~", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mathbb|Bbb|mathbf)\s*\{?\s*R(?![a-zA-Z])\s*\}?", r"(-\\infty,\\infty)"),
        (
            r"\\(?:mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|textup|textnormal|mbox|hbox)"
            r"(?![a-zA-Z])",
            r"\\text",
        ),
        (r"\\(?:operatorname\*?|boldsymbol)(?![a-zA-Z])", r"\\text"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\\text\{([-\d.,]*)\}", r"\1"),
        (r"(?<=\d)\{\s*,\s*\}(?=\d{3})", ""),
        (r"\{\s*,\s*\}", ","),
        (r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\(?:neq|ne)(?![a-zA-Z])|(?<!\d)!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\lbrack(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"(?<![a-zA-Z\\])(?:[Ii]nfinity|inf)(?![a-zA-Z])|\\text\{\s*[Ii]nfinity\s*\}", r"\\infty "),
        (r"\+\s*\\infty", r"\\infty"),
        (
            r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z])|\{\s*\\degree\s*\}|\\degree(?![a-zA-Z]))",
            r"\\degree ",
        ),
        (r"\\%", "%"),
        (r"\\overline\s*\{([A-Z]{2,})\}", r"\1"),
        (r"\\(?:angle|triangle)(?![a-zA-Z])\s*", ""),
        (r"\*\*", "^"),
        (rf"(?<![a-zA-Z\\])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1 "),
        (r"(?<![a-zA-Z\\])sqrt(?![a-zA-Z])", r"√"),
        (r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√", r"\\sqrt"),
        (r"\^\s*-\s*(\d+|[a-zA-Z])", r"^{-\1}"),
        (r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}", r"\\binom{\1}{\2}"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\[[^\]]*\])?\s*(" + _NUMBER_OR_LETTER + ")", r"\\sqrt\1{\2}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(" + _NUMBER_OR_LETTER + r")\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{(?:[^{}]|\{[^{}]*\})*\})\s*(" + _NUMBER_OR_LETTER + ")", r"\\frac\1{\2}"),
        (r"\\frac\s*([a-zA-Z])\s*(" + _NUMBER_OR_LETTER + ")", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*([a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s+\{", r"\\frac{"),
        (r"\\sqrt\[([3579])\]\{\s*-\s*(\d+)\s*\}", r"-\\sqrt[\1]{\2}"),
        (
            r"(?<![\w.}^/])(\d+)\s*/\s*(\d+)(?=\s*[a-zA-Z\\(])(?!\s+[a-zA-Z]{2}|\s*\\text)",
            r"\\frac{\1}{\2}",
        ),
        (r"\*", r"\\cdot "),
        (r"\s+", " "),
    )
)


def clean(text: str) -> str | None:
    """The answer in one spelling; None if it is empty, too long, too deep or has control characters.

    Of a text with boxes it is what stands in the last one.

    Invisible characters (controls, bidirectional marks, zero-width characters, lone surrogates) are
    not removed but refused: what a reader cannot see must not make an answer right.
    """
    for _ in range(2):  # a box in a box, and no deeper
        if r"\boxed" in text or r"\fbox" in text:
            text = (boxes(text) or [""])[-1]
    text = text.strip()
    if not text or len(text) > LONGEST:
        return None
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"(?<!\\)\$([^$]+)(?<!\\)\$", r"\1", text.translate(_SYMBOLS))
    if any(unicodedata.category(character)[0] == "C" for character in text):
        return None
    text = unwrap(text)
    text = re.sub(r"^(?:about|around|approximately|approx\.?)\s+(?=\S)", "", text)
    if r"\begin" not in text:  # doubled backslashes of a model that escapes its LaTeX
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip()
    return text if text and _depth(text) <= DEEPEST else None


def unwrap(text: str) -> str:
    r"""What stands inside `$...$`, `\(...\)`, `\[...\]` or `**...**`, if that is all."""
    while True:
        text = re.sub(r"(?<![.\\])[.,;]$", "", text.strip()).strip()
        inside = next((m["inside"] for p in _WRAPPED if (m := p.fullmatch(text))), None)
        if inside is None:
            return text
        text = inside


_OPEN, _CLOSE = "([{", ")]}"


def closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`, any kind by any; -1 if there is none."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in _OPEN) - (text[place] in _CLOSE)
        if depth == 0:
            return place
    return -1


def split(text: str, separator: str) -> list[str]:
    """The parts of a text between the matches of a pattern that stand outside all brackets."""
    wanted, parts, depth, last, place = re.compile(separator), [], 0, 0, 0
    while place < len(text):
        if text.startswith(r"\begin", place):
            depth += 1
        elif text.startswith(r"\end", place):
            depth -= 1
        found = wanted.match(text, place) if depth == 0 else None
        if found and found.end() > place:
            parts.append(text[last:place])
            last = place = found.end()
            continue
        depth += (text[place] in _OPEN) - (text[place] in _CLOSE)
        place += 1
    return [*parts, text[last:]]


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSE)
        deepest = max(deepest, depth)
    return deepest
