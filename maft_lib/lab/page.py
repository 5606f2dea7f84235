"""The parts that every shown record is built from: frame, stylesheet, chips, folds, lists of facts.

Knows neither debates nor models. All text that comes in is foreign and is escaped, unless an argument
says that it is HTML. Without the stylesheet (JupyterLab drops it in a notebook that is not trusted)
what is left still reads well: tables, lists, and marks that are characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("maft.css").read_text(encoding="utf-8")

# MathJax 2 and 3 leave what has these classes alone; formulas here are MathML already.
_NO_MATHJAX = "tex2jax_ignore mathjax_ignore"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SIGNS = {
    "right": ("✓", "right"),
    "wrong": ("✗", "wrong"),
    "none": ("–", ""),  # no answer: the label says so
    "plain": ("", ""),
}


def framed(body: str, *classes: str) -> str:
    """HTML `body` as one output of a notebook: its root element, with the stylesheet in it."""
    names = " ".join(("maft", *classes, _NO_MATHJAX))
    return f'<div class="{names}"><style>{STYLE}</style>{body}</div>'


def escaped(text: object) -> str:
    """Foreign text for HTML, in elements and in attributes; characters HTML cannot hold become �."""
    whole = str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no half pairs
    return escape(_CONTROL.sub("�", whole))


def chip(label: object, kind: str, html: str | None = None) -> str:
    """A short label with a mark: `kind` is `right` (✓), `wrong` (✗), `none` (–) or `plain`.

    `html` is shown in place of the label, which then is what the pointer finds.
    """
    sign, said = _SIGNS[kind]
    mark = f'<b aria-hidden="true">{sign}</b> ' if sign else ""
    spoken = unseen(f"{said}: ") if said else ""
    title = f' title="{escaped(label)}"' if html is not None else ""
    return f'<span class="maft-chip maft-{kind}"{title}>{mark}{spoken}{html or escaped(label)}</span>'


def fold(title: object, body: str, opened: bool = False) -> str:
    """HTML `body` behind a title that opens it."""
    state = " open" if opened else ""
    return f"<details{state}><summary>{escaped(title)}</summary>{body}</details>"


def unseen(text: object) -> str:
    """Text for those who listen to the page, and for pages without the stylesheet."""
    return f'<span class="maft-said">{escaped(text)}</span>'


def badge(number: int) -> str:
    """The letter of group `number`, counted from 0."""
    return f'<span class="maft-group">{unseen("group ")}{letter(number)}</span>'


def letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ... for 0, 1, 2, ..."""
    return (letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def facts(pairs: Iterable[tuple[object, str]], name: str = "maft-facts") -> str:
    """Names with what they are (HTML), as a list of terms."""
    rows = (f"<div><dt>{escaped(term)}</dt><dd>{html}</dd></div>" for term, html in pairs)
    return f'<dl class="{name}">{"".join(rows)}</dl>'


def table(caption: object, heads: Iterable[object], rows: Iterable[Iterable[str]]) -> str:
    """A plain table; cells are HTML, the first of each row is its head."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heads)
    body = "".join(_row(*row) for row in rows)
    start = f'<table class="maft-table"><caption>{escaped(caption)}</caption>'
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"{start}{top}<tbody>{body}</tbody></table>"


def _row(first: str, *others: str) -> str:
    cells = "".join(f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="row">{first}</th>{cells}</tr>'
