r"""Foreign text as HTML with its LaTeX as MathML, which browsers show without help. Knows no debates.

Formulas are `$..$`, `$$..$$`, `\(..\)`, `\[..\]`, the environments of displayed mathematics, and a
`\boxed{..}` that stands alone. A single dollar opens one by pandoc's rules: no space after it, none
before the one that closes, and no digit behind that; so `$5 and $6` stays money. Whatever latex2mathml
cannot read stays as it was written. Its elements are written out here, since its own writer undoes the
escaping of `\text{<script>}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element  # no XML is read  # nosec B405

from maft_lib.lab.page import escaped

LONGEST = 2000  # characters of a formula; longer ones stay text
LONGEST_INLINE = 500
READ = 16_000  # characters of a text in which formulas are looked for; 2,048 tokens are about 8,000
DEEPEST = 40  # braces within braces of a box

_OPENER = re.compile(
    r"\\\$|\\\\|\$\$|\$|\\\(|\\\[|\\boxed\s*\{|\[asy\]"
    r"|\\begin\{(?P<name>(?:align|aligned|equation|gather|gathered|multline|eqnarray|split|array|cases"
    r"|[pbvBV]?matrix)\*?)\}"
)
_CLOSERS = {"$$": "$$", r"\(": r"\)", r"\[": r"\]", "[asy]": "[/asy]"}
# A dollar within is escaped, or has a digit behind and no space before it. `+`s that never give back
# keep the search linear: what may stand within is never what may close.
_INLINE = re.compile(r"\$(?=[^\s$])(?:\\.|[^\\$]++|(?<!\s)\$(?=\d))++(?<!\s)\$(?!\d)", re.S)
_PROSE = re.compile(r"[A-Za-z]{3,},? +[A-Za-z]{2,} ")  # in "$5, and she has 3$"
_WORDS = re.compile(r"[A-Za-z][A-Za-z ,.'-]+")
_MARK = re.compile(r"[.,;:?!)]+")
_DEFINES = re.compile(r"\\(?:[egx]?def|let|\w*newcommand|\w*newenvironment|DeclareMathOperator)")
_REFERENCE = re.compile(r"&#x([0-9A-Fa-f]{1,6});")  # how latex2mathml writes symbols

# Elements that mean something by where they stand: without MathML 1/2 would read 12.
_LAYOUT = frozenset(
    ["mfrac", "msup", "msub", "msubsup", "msqrt", "mroot", "munder", "mover", "munderover", "mtable"]
)
_LINEAR = frozenset(
    ["math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "mstyle", "mpadded", "mphantom", "menclose"]
    + ["mtr", "mtd"]
)
_WORD = re.compile(r"[a-z]+( [a-z]+)*|-?\d")
_LENGTH = re.compile(r"[-+]?0?\.\d+(?:em|ex)|\+?\d(?:\.\d+)?(?:em|ex)|\d{1,2}(?:pt|px|mu)")
_ATTRIBUTES = {
    **dict.fromkeys(["display", "displaystyle", "scriptlevel", "columnalign", "mathvariant"], _WORD),
    **dict.fromkeys(["stretchy", "fence", "form", "accent", "movablelimits", "notation"], _WORD),
    **dict.fromkeys(["width", "height", "depth", "lspace", "rspace"], _LENGTH),
    **dict.fromkeys(["minsize", "maxsize", "linethickness"], _LENGTH),
}


def text_html(text: str) -> str:
    """Foreign text as HTML: escaped, its formulas as MathML, its line breaks as `<br>`."""
    text = text.replace("\r\n", "\n").strip("\n")
    return "".join(_parts(text[:READ])) + _plain(text[READ:])


def formula_html(latex: str) -> str:
    """LaTeX without delimiters (a final answer) as MathML; what is no formula stays text."""
    return _formula(latex, latex, False) if re.search(r"[\\^_]", latex) else _plain(latex)


def _parts(text: str) -> Iterator[str]:
    place = 0
    while opener := _OPENER.search(text, place):
        yield _plain(text[place : opener.start()])
        place = _end(text, opener)
        source = text[opener.start() : place]
        if place == opener.end():  # nothing closes it
            yield _plain("$" if source == r"\$" else source)
            continue
        display = opener[0] in ("$$", r"\[") or opener["name"] is not None
        html = _found(source, opener[0], display)
        if display and text[place : place + 1] == "\n":
            place += 1  # a displayed formula ends its line by itself
        if not display and (mark := _MARK.match(text, place)):
            html = f'<span class="maft-n">{html}{mark[0]}</span>'  # no line begins with a comma
            place = mark.end()
        yield html
    yield _plain(text[place:])


def _end(text: str, opener: re.Match[str]) -> int:
    """Where the formula ends that `opener` begins; the opener's own end if it begins none."""
    start, stop = opener.end(), opener.start() + LONGEST
    if opener[0] == "$":
        inline = _INLINE.match(text, opener.start(), opener.start() + LONGEST_INLINE)
        return inline.end() if inline and not _is_prose(inline[0]) else start
    if opener[0].startswith(r"\boxed"):
        return _closing_brace(text, start, stop)
    closer = rf"\end{{{opener['name']}}}" if opener["name"] else _CLOSERS.get(opener[0])
    found = text.find(closer, start, stop) if closer else -1
    return found + len(closer) if closer and found >= 0 else start


def _is_prose(inline: str) -> bool:
    return "\n\n" in inline or ("\\" not in inline and bool(_PROSE.search(inline)))


def _closing_brace(text: str, start: int, stop: int) -> int:
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.S).finditer(text, start, stop):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
        if depth > DEEPEST:
            break
    return start


def _found(source: str, opener: str, display: bool) -> str:
    """A formula in its delimiters, or a figure's program, as HTML."""
    if opener == "[asy]":
        return f"<code>{_broken(escaped(source))}</code>"
    if opener.startswith(r"\boxed"):
        inner = source[len(opener) : -1].strip()
        return _formula(rf"\boxed{{{_boxed(inner)}}}", source, display)
    if opener.startswith(r"\begin"):
        return _formula(source, source, display)
    return _formula(source[len(opener) : -len(opener)], source, display)


def _boxed(inner: str) -> str:
    """What stands in a box: words, a formula in dollars of its own, or money."""
    if _WORDS.fullmatch(inner):
        return rf"\text{{{inner}}}"
    if len(inner) > 2 and inner[0] == inner[-1] == "$":
        inner = inner[1:-1]
    return re.sub(r"(?<!\\)\$", r"\\$", inner)


def _formula(latex: str, source: str, display: bool) -> str:
    """MathML and, where that alone would not read without it, the source in its stead.

    `hidden` is undone by the stylesheet, which hides the source: where there is no stylesheet there is
    no MathML either (JupyterLab takes both out of a notebook that is not trusted, and a `hidden`
    without a value, too).
    """
    written = _mathml(latex.strip(), display)
    if written is None:
        return _plain(source)
    mathml, has_layout = written
    name = "maft-m maft-d" if display else "maft-m"
    if not has_layout:
        return f'<span class="{name}">{mathml}</span>' if display else mathml
    tex = f'<code class="maft-tex">{escaped(source)}{"<br>" if display else ""}</code>'
    return f'<span class="{name}" hidden="hidden">{mathml}</span>{tex}'


@lru_cache(maxsize=10_000)
def _mathml(latex: str, display: bool) -> tuple[str, bool] | None:
    """A formula as MathML, and whether it has any layout; None if it cannot be read."""
    from latex2mathml.converter import convert_to_element

    if not latex or len(latex) > LONGEST or _DEFINES.search(latex):  # macros can grow without bound
        return None
    try:
        tree = convert_to_element(latex, display="block" if display else "inline")
        return _written(tree), any(node.tag in _LAYOUT for node in tree.iter())
    except Exception:  # latex2mathml raises all kinds of errors at what it cannot read
        return None


def _written(node: Element, parent: str = "") -> str:
    """An element without what nothing needs: rows of one, attributes that are not on the list.

    Raises `ValueError` for an element that is not known.
    """
    if node.tag not in _LAYOUT | _LINEAR:
        raise ValueError(f"{node.tag} is no element of presentation MathML.")
    inside = escaped(_symbols(node.text or "")) + "".join(_written(n, node.tag) for n in node)
    if node.tag == "mrow" and (parent == "math" or (len(node) == 1 and node[0].tag != "mo")):
        return inside  # an operator alone in a row has no space around it, so that row stays
    kept = {n: v for n, v in node.attrib.items() if n in _ATTRIBUTES and _ATTRIBUTES[n].fullmatch(v)}
    kept = {n: v for n, v in kept.items() if (n, v) != ("display", "inline")}
    attributes = "".join(f' {name}="{value}"' for name, value in kept.items())
    return f"<{node.tag}{attributes}>{inside}</{node.tag}>"


def _symbols(text: str) -> str:
    """The text of an element with its references as characters.

    Raises `ValueError` for a command that latex2mathml does not know, and for delimiters of MathJax.
    """
    text = _REFERENCE.sub(lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"\\([$%&#_])", r"\1", text)
    if "\\" in text.removeprefix("\\") or text.count("$") > 1 or re.match(r"\\\w", text):
        raise ValueError(f"{text!r} is more than a symbol or words.")
    return text


def _plain(text: str) -> str:
    return _broken(escaped(text)).replace("\n", "<br>")


def _broken(html: str) -> str:
    """Dollars and backslashes in elements of their own, which MathJax's search does not cross."""
    return html.replace("\\", "<span>\\</span>").replace("$", "<span>$</span>")
