r"""What `records.html` draws, in its frame, and text with its LaTeX as MathML.

Text of models and people is escaped, and MathML passes through nh3: nothing in it is markup. Where a
front end drops stylesheet and MathML (JupyterLab, in a notebook that is not trusted), tables, lists,
marks that are characters and the source of each formula are left.

Formulas are `$..$`, `$$..$$`, `\(..\)`, `\[..\]`, displayed environments and a `\boxed{..}` that stands
alone. A dollar opens one by pandoc's rules (no space after it, none before the one that closes, no
digit behind that), so `$5 and $6` stays money. What latex2mathml cannot read stays as it was written.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape, unescape
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring  # no XML is read  # nosec B405

import nh3
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from maft_lib.tasks import answer_type

STYLE = Path(__file__).with_name("maft.css").read_text(encoding="utf-8")
LONGEST = 2_000  # characters of a formula; longer ones stay text
READ = 16_000  # characters of a text in which formulas are looked for

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


_RECORDS = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: value if isinstance(value, Markup) else _writable(str(value)),
)
_RECORDS.globals["signs"] = {"right": "✓", "wrong": "✗", "none": "–"}
_RECORDS.filters["text"] = lambda text: Markup(text_html(text))
_RECORDS.filters["answer"] = lambda answer, task: Markup(answer_html(answer, task))


def drawn(macro: str, *values: Any) -> Markup:
    """A macro of `records.html` with its values, as HTML."""
    return Markup(getattr(_RECORDS.get_template("records.html").module, macro)(*values))


def framed(body: str, *classes: str) -> str:
    """HTML `body` as one output of a notebook: its root element, with the stylesheet in it."""
    names = " ".join(("maft", *classes, "tex2jax_ignore mathjax_ignore"))  # formulas are MathML
    return f'<div class="{names}"><style>{STYLE}</style>{body}</div>'


def escaped(text: object) -> str:
    """Text for elements and attributes of HTML."""
    return escape(_writable(str(text)))


def _writable(text: str) -> str:
    """Text in which characters that HTML cannot hold, half pairs of UTF-16 for one, become �."""
    return _CONTROL.sub("�", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def answer_html(answer: str, task: str) -> str:
    """A final answer: its LaTeX as mathematics where the answers of the task are expressions."""
    try:
        is_latex = answer_type(task) == "expression"
    except ValueError:  # a task of one's own
        is_latex = True
    return formula_html(answer) if is_latex else text_html(answer)


# --- text with formulas --------------------------------------------------------------------------

_BRACED = r"(?:[^{}\\]|\\.)"  # what stands between two braces, with braces in it six deep
for _ in range(6):
    _BRACED = rf"(?:[^{{}}\\]|\\.|\{{{_BRACED}*+\}})"
_ENVIRONMENTS = (
    r"(?:align|aligned|equation|gather|gathered|multline|eqnarray|split|array|cases|[pbvBV]?matrix)"
)
_PROSE = r"[^$\\]{0,300}?[A-Za-z]{3,20},? +[A-Za-z]{2,20} [^$\\]*\$"  # in "$5, and she has 3$"
_FORMULA = re.compile(
    r"(?P<dollar>\\\$)|(?P<newline>\\\\)|(?P<figure>\[asy\].{0,2000}?\[/asy\])"
    r"|(?P<display>(?:\$\$[^$]{1,2000}\$\$|\\\[.{1,2000}?\\\])\n?)"
    rf"|(?P<environment>\\begin\{{(?P<name>{_ENVIRONMENTS}\*?)\}}.{{0,2000}}?\\end\{{(?P=name)\}}\n?)"
    rf"|(?P<box>\\boxed\s*\{{(?P<boxed>{_BRACED}*+)\}})"
    r"|(?P<round>\\\(.{1,2000}?\\\))"
    rf"|(?P<inline>\$(?=[^\s$])(?!{_PROSE})"
    r"(?:\\.|[^\\$\n]|\n(?!\n)|(?<!\s)\$(?=\d)){1,500}+(?<!\s)\$(?!\d))",
    re.S,
)
_DEFINES = re.compile(r"\\(?:[egx]?def|let|\w*newcommand|\w*newenvironment|DeclareMathOperator)")
_TAGS = {"math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "mstyle", "mpadded", "mphantom"}
_TAGS |= {"menclose", "mfrac", "msup", "msub", "msubsup", "msqrt", "mroot", "munder", "mover"}
_TAGS |= {"munderover", "mtable", "mtr", "mtd"}
_ATTRIBUTES = {"display", "displaystyle", "scriptlevel", "columnalign", "mathvariant", "stretchy"}
_ATTRIBUTES |= {"fence", "form", "accent", "notation", "movablelimits", "linethickness", "width"}
_ATTRIBUTES |= {"height", "depth", "lspace", "rspace", "minsize", "maxsize"}
_VALUE = re.compile(r"[a-z ]+|-?\d|[-+]?\d?(?:\.\d+)?(?:em|ex)|\d{1,2}(?:pt|px|mu)")


def text_html(text: str) -> str:
    """Text of models or people as HTML: escaped, its formulas as MathML, its line breaks as `<br>`."""
    text = text.replace("\r\n", "\n").strip("\n")
    parts, place = [], 0
    for found in _FORMULA.finditer(text, 0, READ):
        parts += [_plain(text[place : found.start()]), _found(found)]
        place = found.end()
    return "".join(parts) + _plain(text[place:])


def formula_html(latex: str) -> str:
    """LaTeX without delimiters (a final answer) as MathML; what is no formula stays text."""
    return _formula(latex, latex) if re.search(r"[\\^_]", latex) else _plain(latex)


def _found(found: re.Match[str]) -> str:
    """A formula in its delimiters as HTML."""
    source, kind = found[0], found.lastgroup
    if kind in ("dollar", "newline"):
        return source.replace(r"\$", "$")
    if kind == "figure":
        return f"<code>{_plain(source)}</code>"
    if kind == "environment":
        return _formula(source, source, display=True)
    if kind != "box":
        width = 1 if kind == "inline" else 2
        return _formula(source.strip()[width:-width], source, display=kind == "display")
    inner = found["boxed"].strip()
    if re.fullmatch(r"[A-Za-z][A-Za-z ,.'-]+", inner):  # words
        inner = rf"\text{{{inner}}}"
    elif len(inner) > 2 and inner[0] == inner[-1] == "$":  # a formula in dollars of its own
        inner = inner[1:-1]
    money = re.sub(r"(?<!\\)\$", r"\\$", inner)
    return _formula(rf"\boxed{{{money}}}", source)


def _formula(latex: str, source: str, display: bool = False) -> str:
    """MathML, which is `hidden` unless the stylesheet is there, and the source, which that hides."""
    mathml = _mathml(_writable(latex.strip()), display)
    if mathml is None:
        return _plain(source)
    name = "maft-m maft-d" if display else "maft-m"
    tex = f'<code class="maft-tex">{_plain(source)}</code>'
    return f'<span class="{name}" hidden="hidden">{mathml}</span>{tex}'


@lru_cache(maxsize=10_000)
def _mathml(latex: str, display: bool) -> str | None:
    """A formula as MathML; None if latex2mathml cannot read it."""
    from latex2mathml.converter import convert_to_element

    if not latex or len(latex) > LONGEST or _DEFINES.search(latex):  # macros can grow without bound
        return None
    try:
        tree = convert_to_element(latex, display="block" if display else "inline")
        for node in tree.iter():  # symbols come as references; an unknown command as itself
            node.text = re.sub(r"\\([$%&#_])", r"\1", unescape(node.text or ""))
            if re.search(r"\\.", node.text, re.S):
                return None
        written = tostring(tree, encoding="unicode")
    except Exception:  # latex2mathml raises all kinds of errors at what it cannot read
        return None
    return nh3.clean(
        written,
        tags=_TAGS,
        attributes=dict.fromkeys(_TAGS, _ATTRIBUTES),
        attribute_filter=lambda tag, name, value: value if _VALUE.fullmatch(value) else None,
    )


def _plain(text: str) -> str:
    return escaped(text).replace("\n", "<br>")
