"""What the explorer shows of the selected debate, alone or beside another one, as HTML.

Knows how a debate is drawn (`display`), and no widgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from maft_lib.debate import Debate
from maft_lib.lab.debates import debate_body
from maft_lib.lab.page import chip, escaped, framed

_COLUMNS = (
    "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem 2rem"
)
_COLUMN = "min-width:0;container-type:inline-size"


class Pane(NamedTuple):
    """A debate with the name of its run and what happened in it, or a sentence why there is none."""

    run: str
    outcomes: Sequence[str]
    debate: Debate | str


def screen_html(panes: Sequence[Pane], rounds: int) -> str:
    """The panes side by side, or below each other where the screen is narrow, up to a round."""
    if len(panes) == 1:
        return framed(_pane(panes[0], rounds), "maft-debate")
    columns = "".join(f'<section style="{_COLUMN}">{_pane(pane, rounds)}</section>' for pane in panes)
    return framed(f'<div style="{_COLUMNS}">{columns}</div>', "maft-debate", "maft-pair")


def notice_html(sentence: str) -> str:
    """A sentence where a debate would be."""
    return framed(f"<p>{escaped(sentence)}</p>")


def _pane(pane: Pane, rounds: int) -> str:
    chips = " ".join(chip(outcome, "plain") for outcome in pane.outcomes)
    name = f"<b>{escaped(pane.run)}</b>" if pane.run else ""
    heading = (
        f'<p class="maft-heading" style="margin:0 0 .4em">{name} {chips}</p>' if name + chips else ""
    )
    if isinstance(pane.debate, str):
        return f"{heading}<p>{escaped(pane.debate)}</p>"
    return heading + debate_body(pane.debate, min(rounds, len(pane.debate.turns[0])))
